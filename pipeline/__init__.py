"""mar-pipeline: from a Hugging Face transformer to a TorchServe archive that answers like the original."""

from pathlib import Path

__version__ = "0.1.0"

ROOT = Path(__file__).parent
"""This package's folder: whatever finds a file that ships with it begins here."""
