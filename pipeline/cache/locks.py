"""Locks of a cache: shared by builds, exclusive for maintenance, and one for each key."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import IO

from ..errors import InputError, StageError, disk_is_full, of_the_disk
from ..files import waiting
from ..files.opening import opened
from . import folder


class Locks:
    """The locks of the cache at `root`, which is created and marked as a cache if it does not exist. For a `read_only`
    cache, nothing is created, and without a lock file nothing is locked. After two seconds of waiting for another
    process, `tell` gets a line about it.

    Raises InputError if `root` cannot be a cache, StageError if its file system does not support locks."""

    def __init__(self, root: Path, tell: Callable[[str], None], *, read_only: bool = False) -> None:
        self.root, self.read_only = root, read_only
        self._tell = tell

    @contextmanager
    def shared(self, first: Callable[[], None]) -> Iterator[None]:
        """A shared lock of the cache. `first` is called before, if nobody else has a lock."""
        with self._open() as lock:
            if lock is not None:
                if lock.writable():
                    try:
                        self._flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        first()
                    except BlockingIOError:
                        pass
                with self._explained():
                    waiting.acquire(
                        lock.fileno(), fcntl.LOCK_SH, f"a command that cleans the cache at {self.root}", self._tell
                    )
            yield

    @contextmanager
    def alone(self) -> Iterator[None]:
        """An exclusive lock of the cache. Raises BlockingIOError if somebody else has a lock."""
        with self._open() as lock:
            if lock is not None:
                self._flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield

    @contextmanager
    def of_key(self, key: str) -> Iterator[None]:
        """A lock of one key; waits until nobody else has it."""
        locks = self.root / "locks"
        locks.mkdir(parents=True, exist_ok=True)
        with _created(locks / f"{key}.lock") as lock:
            with self._explained():
                waiting.acquire(lock.fileno(), fcntl.LOCK_EX, "another build that makes the same result", self._tell)
            yield

    def _open(self) -> AbstractContextManager[IO[bytes] | None]:
        """The open lock file; None if it does not exist and must not be created."""
        folder.check(self.root)
        file = self.root / folder.LOCK
        if self.read_only:
            try:
                return opened(file)
            except OSError:
                return nullcontext()
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            lock = _created(file)
            folder.mark(self.root)
            return lock
        except OSError as error:
            if disk_is_full(error):
                raise StageError(
                    f"The disk is full: the cache at {self.root} cannot be created.",
                    fix="Free some space there, or use --cache, or MAR_CACHE, for another disk.",
                ) from None
            if error.errno in (errno.EROFS, errno.EACCES) and file.is_file():
                return opened(file)
            raise InputError(
                f"The cache cannot be at {self.root}: {error.strerror}.",
                fix="Use --cache, or MAR_CACHE, for a folder that can be written to.",
            ) from None

    def _flock(self, lock: IO[bytes], how: int) -> None:
        with self._explained():
            fcntl.flock(lock, how)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except BlockingIOError:
            raise
        except OSError as error:
            raise of_the_disk(OSError(errno.ENOLCK, error.strerror), self.root) or error from None


def _created(file: Path) -> IO[bytes]:
    """The open lock file, created if it does not exist. Does not follow a link, which could lead to anybody's file."""
    return os.fdopen(os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666), "r+b", 0)
