"""The documentation, and below `docs.generate` what writes its generated parts."""
