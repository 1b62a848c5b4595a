"""Archives that are changed in every field, read by this program and by TorchServe's own classes."""
