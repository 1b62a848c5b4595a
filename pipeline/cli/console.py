"""What a person sees. Results go to standard output, how it goes and what went wrong to standard error."""

from __future__ import annotations

import shutil
import sys

from ..errors import MarError


def command() -> str:
    """What to type for this very command: `mar` where the shell finds it, else the path that it was called by."""
    return "mar" if shutil.which("mar") or not sys.argv[0].endswith("mar") else sys.argv[0]


def failed(error: MarError) -> None:
    """An expected error: its lines, no traceback."""
    first, *rest = str(error).splitlines()
    print(f"error: {first}", file=sys.stderr)
    for line in rest:
        print(f"       {line}", file=sys.stderr)


def note(text: str) -> None:
    print(f"note: {text}", file=sys.stderr)


def line(text: object) -> None:
    """A line that has a form of its own."""
    print(text, file=sys.stderr)


def warning(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr)
