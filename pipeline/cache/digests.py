"""Cached digests of files outside the cache: an unchanged file is not read again."""

from __future__ import annotations

import errno
from dataclasses import asdict
from pathlib import Path

from ..errors import StageError
from ..files.tree import Entry, Tick, scan, text_digest
from .notes import Notes


def changed(entry: Entry) -> StageError:
    """The error for a file that changed or disappeared during the build."""
    return StageError(
        f"{entry.path} changed during the build, or is gone.",
        "Something wrote to the checkpoint's folder, such as a training run, or emptied the cache.",
        "Build again when it has finished.",
    )


class Digests:
    """Digests in the `notes` of the cache at `root`, each valid while the file's stat is what it was when it was
    read."""

    def __init__(self, root: Path, notes: Notes) -> None:
        self.root, self._notes = root, notes

    def known(self, file: Path) -> Entry | None:
        """The entry of a file, if its stat is unchanged since it was read; else None."""
        try:
            stamp = _stamp(file)
        except OSError:
            return None
        note = self._notes.read(self._note(file), f"the digest of {file}")
        return Entry(**note["entry"]) if note is not None and note["stat"] == stamp else None

    def read(self, file: Path, path: str, tick: Tick | None = None, *, links: bool = True) -> Entry:
        """The entry of a file under `path`; the file is read only if it is not `known`.

        Raises StageError if it changes meanwhile; without `links`, also if it has become a symbolic link.
        """
        cached = self.known(file)
        if cached is not None:
            return Entry(path, cached.sha256, cached.size, cached.crc32)
        before = _stamp(file)
        try:
            entry = scan(file, path, tick, links=links)
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            raise changed(Entry(path, "", 0, 0)) from None
        if before != _stamp(file):
            raise changed(entry)
        self.know(file, entry)
        return entry

    def know(self, file: Path, entry: Entry) -> None:
        """Store the entry of a file; it is valid while the file's stat stays the same."""
        self._notes.write(self._note(file), {"stat": _stamp(file), "entry": asdict(entry), "file": str(file)})

    def forget(self, file: Path) -> None:
        """Drop the stored entry of a file, so that the file is read again."""
        self._notes.remove(self._note(file))

    def _note(self, file: Path) -> Path:
        name = text_digest(str(file.absolute()))
        return self.root / "files" / name[:2] / f"{name}.json"


def _stamp(file: Path) -> list[int]:
    # Programs can set mtime, but not ctime (inode(7)).
    stat = file.stat()
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
