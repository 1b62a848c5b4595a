"""Runs an archive's handler in a worker, and compares its answers and tokens with the original model's."""
