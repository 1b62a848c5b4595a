"""mar-pipeline: from a Hugging Face transformer to a TorchServe archive that answers like the original."""

__version__ = "0.1.0"
