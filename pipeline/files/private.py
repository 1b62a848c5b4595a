"""Temporary folders that only this user can read. Each is removed by the process that made it or, if that was killed,
by the next one that looks (`sweep`): a folder is locked (flock) as long as its process lives."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import stat
import tempfile
import uuid
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType

_NAME = re.compile(r"mar-(?:run|serve|logs)-[0-9a-f]{12}")
"""The names of `in_temporary`. The sockets below such a folder need a short path."""
_MODE = 0o700
UNFINISHED = ".unfinished"
"""A file in a folder that is to outlive its process, until that has ended by itself (`Folder.outlive`)."""


class Folder:
    """A new folder with mode 0700; as a context manager, it is removed at the end. `lock` is the descriptor that locks
    it: a child process that inherits it keeps the folder in use.

    Raises OSError if it cannot be created. Where the file system has no locks, the folder is not locked, and never
    swept.
    """

    def __init__(self, parent: Path, prefix: str = "", digits: int = 32) -> None:
        while True:
            self.path = parent / f"{prefix}{uuid.uuid4().hex[:digits]}"
            self.path.mkdir(mode=_MODE)
            try:
                self.lock = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
            except FileNotFoundError:
                continue
            if self._locked():
                return
            # Another process took it for a leftover in between.
            os.close(self.lock)

    def _locked(self) -> bool:
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return self.path.exists()

    def __enter__(self) -> Path:
        return self.path

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self.lock)

    def outlive(self) -> None:
        """Leave the folder to the user, who was told of it."""
        (self.path / UNFINISHED).unlink(missing_ok=True)
        os.close(self.lock)


def in_temporary(purpose: str, folder: str | None = None) -> Folder:
    """A new folder mar-PURPOSE-... in the temporary folder, or in `folder`; those of killed processes go first."""
    parent = Path(folder or tempfile.gettempdir())
    with suppress(OSError):
        sweep(item for item in parent.iterdir() if _NAME.fullmatch(item.name))
    return Folder(parent, f"mar-{purpose}-", 12)


def sweep(folders: Iterable[Path]) -> None:
    """Remove those of `folders` that a `Folder` made whose process has ended: they are this user's, with its mode."""
    for path in folders:
        with suppress(OSError):
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                kept = path.name.startswith("mar-logs-") and not (path / UNFINISHED).exists()
                status = os.fstat(lock)
                made_so = (status.st_uid, stat.S_IMODE(status.st_mode)) == (os.geteuid(), _MODE)
                if made_so and not kept:
                    shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(lock)


def write(path: Path, data: bytes) -> None:
    """Write a new file that only this user can read (0600)."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
