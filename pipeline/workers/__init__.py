"""Child processes that load models: the only package that imports torch or transformers."""
