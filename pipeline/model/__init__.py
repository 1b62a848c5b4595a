"""Models and their files: addresses, checkpoints, adapters, locks. It loads no model, and never imports torch."""
