"""What tests share: the command in a process of its own, checkpoints, archives, stand-ins."""

import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The checkout."""


def copied(source: Path, target: Path) -> Path:
    """A copy of one of the checkout's folders that can be written to, even if the checkout cannot."""
    shutil.copytree(source, target, copy_function=shutil.copyfile, ignore=shutil.ignore_patterns("__pycache__"))
    for folder in (target, *target.rglob("*/")):
        folder.chmod(0o755)
    return target
