"""`python -m mar_pipeline.starters.training TASK [--out DIR]`."""

from __future__ import annotations

import argparse
from importlib import import_module
from pathlib import Path

from ...tasks import TASKS


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a starter model again.")
    parser.add_argument("task", choices=list(TASKS))
    parser.add_argument("--out", type=Path, help="where to; its own folder in the package if not given")
    arguments = parser.parse_args()
    out = arguments.out or Path(__file__).resolve().parent.parent / arguments.task
    import_module(f"{__package__}.{arguments.task}").train(out)


main()
