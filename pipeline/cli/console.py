"""Messages for people, on standard error, and the streams that all output goes through.

Commands print their results on standard output themselves. While a command runs, standard output and standard error
escape what a terminal would act on (`Escaping`), so that nothing in an archive, a checkpoint or a config reaches it.
Colours and progress bars have a console of their own (`styled`), which escapes their texts.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from typing import Any, TextIO, cast

from ..errors import MarError
from ..text import visible

_ESCAPED = "mar-escaped"


def _escaped(error: UnicodeError) -> tuple[str, int]:
    """Characters that an encoding lacks, as JSON escapes them: \\u4e2d, \\ud83d\\ude00."""
    assert isinstance(error, UnicodeEncodeError)
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4)), error.end


class Escaping:
    """A text stream that escapes what a terminal would act on (`text.visible`) and writes it to `raw`. It has no
    `buffer`, through which bytes would get past it."""

    def __init__(self, raw: TextIO) -> None:
        self.raw = raw

    def write(self, text: str) -> int:
        self.raw.write(visible(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        if name == "buffer":
            raise AttributeError(name)
        return getattr(self.raw, name)


@contextlib.contextmanager
def escaping() -> Iterator[None]:
    """Within the context, standard output and standard error escape what a terminal would act on, and what they cannot
    encode. Texts are shown, and JSON stays JSON of the same value."""
    codecs.register_error(_ESCAPED, _escaped)
    before = sys.stdout, sys.stderr
    for stream in before:
        # OSError: in a forked process whose output was a file and is a pipe now.
        if isinstance(stream, io.TextIOWrapper):
            with contextlib.suppress(OSError):
                stream.reconfigure(errors=_ESCAPED)
    # Closed streams are None.
    sys.stdout, sys.stderr = (stream and cast(TextIO, Escaping(stream)) for stream in before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def drop_unwritten() -> None:
    """Drop output that cannot be written (a full disk, a closed pipe): it was reported, and at exit Python would fail
    to write it once more."""
    if sys.stdout is not None:
        try:
            sys.stdout.flush()
        except OSError:
            with contextlib.suppress(OSError):  # no file
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def unescaped(stream: TextIO) -> TextIO:
    """The stream below `Escaping`; for `styled` only."""
    while isinstance(stream, Escaping):
        stream = stream.raw
    return stream


def draws(stream: TextIO | None) -> bool:
    """Whether a stream, which may be closed, can encode every character, as those of bars and trees."""
    return (getattr(stream, "encoding", None) or "").lower().startswith("utf")


def command() -> str:
    """How to call this command: `mar` if it is on PATH, else the path that it was started by."""
    return "mar" if shutil.which("mar") or not sys.argv[0].endswith("mar") else sys.argv[0]


def failed(error: MarError) -> None:
    """Print an expected error, without a traceback."""
    _say("error", str(error))


def note(text: str) -> None:
    """Print a note."""
    _say("note", text)


def line(text: object) -> None:
    """Print a line without a prefix."""
    print(text, file=sys.stderr)


def warning(text: str) -> None:
    """Print a warning."""
    _say("warning", text)


def _say(kind: str, text: str) -> None:
    """Print a text with its kind in front; further lines are indented, so that they cannot look like another one's."""
    indent = "\n" + " " * len(f"{kind}: ")
    print(f"{kind}: {text.replace(chr(10), indent)}", file=sys.stderr)
