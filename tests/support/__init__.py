"""What tests share: the command in a process of its own, checkpoints, archives, stand-ins."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The checkout."""
