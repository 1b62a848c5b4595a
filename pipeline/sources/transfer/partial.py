"""A file that arrives in parts: what is there stays when the transfer breaks off; digests are taken as bytes pass.

Its name is made of its content's identity, so whoever fetches the same content later goes on where it ended. One
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
"""Attempts in a row that bring nothing new."""
LONGEST_WAIT = 60.0
"""Seconds that a server can make us wait by its Retry-After."""


class TooLong(Exception):
    """More bytes come than the file has."""


class Partial:
    """A file on its way, as the file object that a client writes to: `path` while it is not whole."""

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
                pass  # whoever held it has finished it
            self._file.close()
        self._begin()
        self._file.seek(0)
        while chunk := self._file.read(CHUNK):
            self._count(chunk)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        # Of a full disk the room is needed more than the part.
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
        """Append. Raises OSError as the disk does, TooLong beyond the limit."""
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
        return self.size

    def seek(self, place: int, _whence: int = 0) -> int:
        """To the end, where it is; or to the beginning, where a client starts anew."""
        if place != self.size:
            self.restart()
        return self.size

    def truncate(self, _size: int | None = None) -> int:
        return self.size

    def restart(self) -> None:
        """Forget what is there."""
        self._file.truncate(0)
        self._begin()

    def entry(self, path: str) -> Entry:
        """What is there, as an entry."""
        return Entry(path, self._sha.hexdigest(), self.size, self._crc)

    def finish(self, target: Path) -> None:
        """Give the file its name, with the rights that any new file has."""
        target.parent.mkdir(parents=True, exist_ok=True)
        self.path.replace(target)


def complete(
    partial: Partial,
    size: int,
    pull: Callable[[Partial], None],
    right: Callable[[Entry], bool],
    wait: Callable[[Exception], float | None],
    what: str,
    fix: str = "Try another network, or set HF_ENDPOINT to a mirror that can be trusted.",
) -> None:
    """Have `pull` bring what is missing of `size` bytes, again where it breaks off, until the file is whole.

    `wait` tells the seconds to wait after an error, or None for one that will stay. Raises what `pull` raises, or
    StageError if the bytes are not `right`, twice.
    """
    wrong = idle = 0
    while True:
        if partial.size > size or (partial.size == size and not right(partial.entry(""))):
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
            # Most breaks are over at once; a server that says how long means it.
            time.sleep(min(seconds or 0.2 * 2**idle, LONGEST_WAIT))


def _wrong(what: str, fix: str) -> StageError:
    return StageError(
        f"{what} has other bytes than its repository names, twice.",
        "A proxy, a mirror or the disk changed them; nothing of it was kept.",
        fix,
    )


def missing(part: Path, size: int) -> int:
    """Bytes of a file of `size` that its part does not have yet."""
    return max(0, size - (part.stat().st_size if part.exists() else 0))


def refuse_too_little_room(folder: Path, size: int, what: str) -> None:
    """Raises StageError if `size` bytes do not go into `folder`'s file system."""
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if size > free:
        raise StageError(
            f"The disk is full: {what} needs {size:,} bytes, and {folder} has {free:,} left.",
            "What was fetched already stays, and is not fetched again.",
            "Free some space, or set HF_HOME (of the Hub's models) or --cache for another disk.",
        )


def unwritable(error: OSError) -> bool:
    """Whether an error says that a place cannot be written to."""
    return error.errno in (errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR, errno.EISDIR)
