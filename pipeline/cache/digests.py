"""Digests of files that lie outside the cache, so that what has not changed is not read again."""

from __future__ import annotations

import errno
from dataclasses import asdict
from pathlib import Path

from ..errors import StageError
from ..files.tree import Entry, Tick, scan, text_digest
from .notes import Notes


def changed(entry: Entry) -> StageError:
    """A file that the build began with is not there any more, or another one."""
    return StageError(
        f"{entry.path} changed during the build, or is gone.",
        "Something wrote to the checkpoint's folder, a training run perhaps, or emptied the cache.",
        "Build again when it is finished.",
    )


class Digests:
    """The digests that the cache in the folder `root` has in its `notes`, each with the stat that the file had when it
    was read."""

    def __init__(self, root: Path, notes: Notes) -> None:
        self.root, self._notes = root, notes

    def known(self, file: Path) -> Entry | None:
        """The digest of a file, if nothing about it has changed since it was read."""
        try:
            stamp = _stamp(file)
        except OSError:
            return None
        note = self._notes.read(self._note(file), f"the digest of {file}")
        return Entry(**note["entry"]) if note is not None and note["stat"] == stamp else None

    def read(self, file: Path, path: str, tick: Tick | None = None, *, links: bool = True) -> Entry:
        """The entry of a file, reading it only if it is not `known`. Without `links`, one that became a link meanwhile
        is not followed: it has changed."""
        known = self.known(file)
        if known is not None:
            return Entry(path, known.sha256, known.size, known.crc32)
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
        """Keep the digest of a file, for as long as its stat stays what it is."""
        self._notes.write(self._note(file), {"stat": _stamp(file), "entry": asdict(entry), "file": str(file)})

    def forget(self, file: Path) -> None:
        """Know no digest of a file any more, so that it is read again."""
        self._notes.remove(self._note(file))

    def _note(self, file: Path) -> Path:
        name = text_digest(str(file.absolute()))
        return self.root / "files" / name[:2] / f"{name}.json"


def _stamp(file: Path) -> list[int]:
    # A program can set the second time back, but not the third (inode(7)).
    stat = file.stat()
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
