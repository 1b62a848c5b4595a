"""Resumable downloads: a partial file survives an interrupted transfer, and digests are computed while it is written.

The partial file is named after its content's identity, so that a later download of the same content resumes it. One
process at a time writes to it; others wait.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO

from ...errors import StageError, disk_is_full
from ...files.tree import CHUNK, Entry, Tick

TRIES = 5
"""Attempts in a row without any progress."""
LONGEST_WAIT = 60.0
"""The most seconds to wait for a server's Retry-After."""


class TooLong(Exception):
    """The server sends more bytes than the file has."""


class Partial:
    """A partial file at `path`, as a file object that clients can write to; `limit` is the file's size in bytes. Its
    `size` is what is there so far. As a context manager it locks the file, and reads what an earlier transfer left."""

    def __init__(self, path: Path, tick: Tick, limit: int | None = None) -> None:
        self.path, self._tick, self._limit = path, tick, limit
        self.size = 0

    def __enter__(self) -> Partial:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            self._file: IO[bytes] = self.path.open("a+b", buffering=0)
            fcntl.flock(self._file, fcntl.LOCK_EX)
            try:
                if self.path.stat().st_ino == os.fstat(self._file.fileno()).st_ino:
                    break
            except FileNotFoundError:
                pass  # another process has completed it
            self._file.close()
        self._begin()
        self._file.seek(0)
        while chunk := self._file.read(CHUNK):
            self._count(chunk)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        # On a full disk, delete the partial file: the space matters more than resuming.
        if error is not None and (self.size == 0 or disk_is_full(error)):
            self.path.unlink(missing_ok=True)
        self._file.close()

    def _begin(self) -> None:
        self._sha, self._crc = hashlib.sha256(), 0
        self._tick(-self.size)
        self.size = 0

    def _count(self, chunk: bytes) -> None:
        self._sha.update(chunk)
        self._crc = zlib.crc32(chunk, self._crc)
        self.size += len(chunk)
        self._tick(len(chunk))

    def write(self, chunk: bytes) -> int:
        """Append a chunk. Raises TooLong beyond the limit, OSError if it cannot be written."""
        if self._limit is not None and self.size + len(chunk) > self._limit:
            raise TooLong
        rest = memoryview(chunk)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from None
        self._count(chunk)
        return len(chunk)

    def tell(self) -> int:
        """The size so far; a part of the file interface."""
        return self.size

    def seek(self, place: int, _whence: int = 0) -> int:
        """Accept a seek to the end, where the file is already; any other starts again from the beginning."""
        if place != self.size:
            self.restart()
        return self.size

    def truncate(self, _size: int | None = None) -> int:
        """Nothing to do; a part of the file interface."""
        return self.size

    def restart(self) -> None:
        """Discard the contents."""
        self._file.truncate(0)
        self._begin()

    def entry(self, path: str) -> Entry:
        """The entry of the contents so far: SHA-256, size and CRC-32."""
        return Entry(path, self._sha.hexdigest(), self.size, self._crc)

    def finish(self, target: Path) -> None:
        """Move the complete file to `target`."""
        target.parent.mkdir(parents=True, exist_ok=True)
        self.path.replace(target)


def complete(
    partial: Partial,
    size: int,
    pull: Callable[[Partial], None],
    valid: Callable[[Entry], bool],
    wait: Callable[[Exception], float | None],
    what: str,
    fix: str = "Try another network, or set HF_ENDPOINT to a mirror that can be trusted.",
) -> None:
    """Call `pull` for the missing bytes until the file has `size` bytes, and again after an interruption.

    `wait` returns the seconds to wait after an error, or None for an error that another attempt would not fix. Raises
    the last error of `pull`, or StageError if the contents are not `valid` twice.
    """
    wrong = idle = 0
    while True:
        if partial.size > size or (partial.size == size and not valid(partial.entry(""))):
            partial.restart()
            wrong += 1
            if wrong == 2:
                raise _wrong(what, fix)
        elif partial.size == size:
            return
        before = partial.size
        try:
            pull(partial)
        except TooLong:
            partial.restart()
            wrong += 1
            if wrong == 2:
                raise _wrong(what, fix) from None
        except Exception as error:
            seconds = wait(error)
            idle = 0 if partial.size > before else idle + 1
            if seconds is None or idle == TRIES:
                raise
            # Most interruptions are short, unless the server sent a Retry-After.
            time.sleep(min(seconds or 0.2 * 2**idle, LONGEST_WAIT))


def _wrong(what: str, fix: str) -> StageError:
    return StageError(
        f"{what} does not have the digest that its repository lists, after two downloads.",
        "A proxy, a mirror or the disk changed its bytes; they were discarded.",
        fix,
    )


def missing(part: Path, size: int) -> int:
    """The bytes that the partial file `part` still lacks of `size`."""
    return max(0, size - (part.stat().st_size if part.exists() else 0))


def refuse_too_little_room(folder: Path, size: int, what: str) -> None:
    """Raise StageError if `size` bytes do not fit into the file system of `folder`."""
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if size > free:
        raise StageError(
            f"The disk is full: {what} needs {size:,} bytes, but {folder} has {free:,} left.",
            "Downloaded files are kept, and not downloaded again.",
            "Free some space, or choose another disk with HF_HOME (for models of the Hub) or --cache.",
        )


def unwritable(error: OSError) -> bool:
    """Whether an error means that a path cannot be written to."""
    return error.errno in (errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR, errno.EISDIR)
