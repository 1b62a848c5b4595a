"""Atomic writes, and notes: small JSON files that contain their own digest."""

from __future__ import annotations

import errno
import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .opening import read_bytes
from .tree import canonical, text_digest

_LARGEST = 1 << 28  # bytes of a note: one can hold a text of a source


class DamagedNote(Exception):
    """A note that does not match its digest."""


def write_atomic(path: Path, text: str) -> None:
    """Write `text` to a temporary file beside `path`, then rename it: readers see the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def write(path: Path, value: Any) -> None:
    """Write a note: a JSON value, with the SHA-256 of its canonical text."""
    write_atomic(path, json.dumps({"sha256": text_digest(canonical(value)), "value": value}, sort_keys=True) + "\n")


def read(path: Path) -> Any:
    """The value of a note. Raises OSError if it cannot be read, DamagedNote if it does not match its digest."""
    try:
        note = json.loads(read_bytes(path, _LARGEST))
        if note.keys() == {"sha256", "value"} and text_digest(canonical(note["value"])) == note["sha256"]:
            return note["value"]
    except (ValueError, AttributeError, RecursionError):
        pass
    raise DamagedNote(str(path))


@contextmanager
def if_writable() -> Iterator[None]:
    """Ignore that a file system is read-only, or a file is not writable: for optional writes."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise
