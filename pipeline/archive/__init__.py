"""Finished archives: reading, writing, listing and signing them. Nothing here depends on how they are built."""
