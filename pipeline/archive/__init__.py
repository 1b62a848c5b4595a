"""Finished archives: how they are read, written, listed and signed. It knows nothing of how they are built."""
