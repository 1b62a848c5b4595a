"""A local TorchServe: its settings, its processes, its answers. It never imports the builder."""
