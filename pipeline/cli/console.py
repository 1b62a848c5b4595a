"""Messages for people, on standard error. Commands print their results on standard output themselves."""

from __future__ import annotations

import codecs
import contextlib
import io
import shutil
import sys
from typing import TextIO

from ..errors import MarError

_ESCAPED = "mar-escaped"


def _escaped(error: UnicodeError) -> tuple[str, int]:
    """Characters that an encoding lacks, as JSON escapes them: \\u4e2d, \\ud83d\\ude00."""
    assert isinstance(error, UnicodeEncodeError)
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4)), error.end


def escape_output() -> None:
    """Escape what standard output and standard error cannot encode, so that texts are shown and JSON stays JSON."""
    codecs.register_error(_ESCAPED, _escaped)
    for stream in (sys.stdout, sys.stderr):
        # OSError: in a forked process whose output was a file and is a pipe now.
        if isinstance(stream, io.TextIOWrapper):
            with contextlib.suppress(OSError):
                stream.reconfigure(errors=_ESCAPED)


def draws(stream: TextIO | None) -> bool:
    """Whether a stream, which may be closed, can encode every character, as those of bars and trees."""
    return (getattr(stream, "encoding", None) or "").lower().startswith("utf")


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
