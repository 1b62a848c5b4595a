"""Models and their files: addresses, checkpoints, adapters, locks. Nothing is loaded here: it never imports torch."""
