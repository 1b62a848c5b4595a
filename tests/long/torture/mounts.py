"""Small file systems in memory: filled, enlarged, made read-only, and always unmounted."""

from __future__ import annotations

import os
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path
from types import TracebackType

PAGE = 4096
"""What a tmpfs gives space in."""

MIB = 1 << 20


class Mounted:
    """A tmpfs of `size` bytes at `folder`, while it is entered."""

    def __init__(self, folder: Path, size: int) -> None:
        self.folder, self._size = folder, size
        self._filler = folder / "filler"

    def __enter__(self) -> Mounted:
        self.folder.mkdir(parents=True, exist_ok=True)
        _run("mount", "-t", "tmpfs", "-o", f"size={self._size}", "none", str(self.folder))
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: object, _trace: TracebackType | None) -> None:
        try:
            _run("umount", str(self.folder))
        except MountError:
            _run("umount", "--lazy", str(self.folder))

    @property
    def free(self) -> int:
        """Bytes that can be written."""
        stat = os.statvfs(self.folder)
        return stat.f_bavail * stat.f_frsize

    def leave(self, size: int) -> None:
        """Fill it until so many bytes (whole pages) are free."""
        self._filler.unlink(missing_ok=True)
        with self._filler.open("wb") as stream:
            os.posix_fallocate(stream.fileno(), 0, max(1, self.free - size))

    def grow(self, size: int) -> None:
        """Make it so many bytes larger, its contents staying."""
        self._size += size
        _run("mount", "-o", f"remount,size={self._size}", str(self.folder))

    def read_only(self) -> None:
        _run("mount", "-o", "remount,ro", str(self.folder))


class Bound:
    """A folder seen at another place, where it cannot be written to, while it is entered."""

    def __init__(self, source: Path, folder: Path) -> None:
        self._source, self.folder = source, folder

    def __enter__(self) -> Bound:
        self.folder.mkdir(parents=True, exist_ok=True)
        _run("mount", "--bind", str(self._source), str(self.folder))
        try:
            _run("mount", "-o", "remount,ro,bind", str(self.folder))
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: object, _trace: TracebackType | None) -> None:
        _run("umount", str(self.folder))


class MountError(Exception):
    """A mount that the system refuses; the message is what it says."""


def _run(*words: str) -> None:
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise MountError(f"there is no `{words[0]}` here") from None
    if done.returncode:
        raise MountError(f"{' '.join(words)}: {done.stderr.strip()}")


@lru_cache
def refusal() -> str:
    """Why nothing can be mounted here; empty if it can."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            with Mounted(Path(folder) / "mounted", MIB):
                return ""
        except MountError as error:
            return str(error)
