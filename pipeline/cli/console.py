"""Messages for people, on standard error. Commands print their results on standard output themselves."""

from __future__ import annotations

import shutil
import sys

from ..errors import MarError


def command() -> str:
    """How to call this command: `mar` if it is on PATH, else the path that it was started by."""
    return "mar" if shutil.which("mar") or not sys.argv[0].endswith("mar") else sys.argv[0]


def failed(error: MarError) -> None:
    """Print an expected error, without a traceback."""
    first, *rest = str(error).splitlines()
    print(f"error: {first}", file=sys.stderr)
    for line in rest:
        print(f"       {line}", file=sys.stderr)


def note(text: str) -> None:
    """Print a note."""
    print(f"note: {text}", file=sys.stderr)


def line(text: object) -> None:
    """Print a line without a prefix."""
    print(text, file=sys.stderr)


def warning(text: str) -> None:
    """Print a warning."""
    print(f"warning: {text}", file=sys.stderr)
