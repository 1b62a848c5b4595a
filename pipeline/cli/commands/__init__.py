"""The commands, one file a family of them."""
