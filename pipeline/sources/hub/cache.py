"""The Hugging Face cache, as the Hub's client lays it out: where the files of a commit lie, and which are whole.

models--ORG--NAME/        a repository
    refs/REVISION         the commit that a revision was
    blobs/ETAG            a file's content
    snapshots/COMMIT/     the files of a commit: links to blobs
"""

from __future__ import annotations

import os
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

from ...cache.store import Store
from ...files.atomic import write_atomic
from ...files.tree import Entry, Tick
from ...model.address import is_commit
from ..transfer import partial
from .listing import SHA1, SHA256, Facts, etag, is_right


def folder_of(repo: str) -> Path:
    """The cache's folder of a repository."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}"


def reference(folder: Path, revision: str) -> str | None:
    """The commit that a revision was when its repository, in `folder`, was last fetched."""
    with suppress(OSError, ValueError):
        commit = (folder / "refs" / revision).read_text(encoding="utf-8").strip()
        return commit if is_commit(commit) else None
    return None


def keep_reference(folder: Path, revision: str, commit: str) -> None:
    write_atomic(folder / "refs" / revision, commit)


class Snapshot:
    """A commit of the repository that has `folder` in the cache. Digests are read once, and kept in `store`."""

    def __init__(self, folder: Path, commit: str, store: Store) -> None:
        self._blobs, self._files, self._store = folder / "blobs", folder / "snapshots" / commit, store

    def file(self, path: str) -> Path:
        """Where a file of the commit lies, if it is there."""
        return self._files / path

    def blob(self, facts: Facts) -> Path:
        """Where a file's content lies, if it is there."""
        return self._blobs / etag(facts)

    def part(self, facts: Facts) -> Path:
        """Where content that is being fetched lies."""
        # The client knows the suffix for what may be removed.
        return self._blobs / f"{etag(facts)}.mar.incomplete"

    def listing(self) -> dict[str, dict[str, Any]]:
        """The facts of each file that is there."""
        found = {}
        for file in self._files.rglob("*"):
            if file.is_file():
                # Blobs are named by their ETag: the SHA-256 of a large file.
                name = file.resolve().name
                found[file.relative_to(self._files).as_posix()] = {
                    "size": file.stat().st_size,
                    "sha256": name if SHA256.fullmatch(name) else None,
                    "git": name if SHA1.fullmatch(name) else None,
                }
        return found

    def missing(self, facts: Facts) -> int:
        """How many bytes of a file are still to be fetched."""
        # What is a blob already another revision brought.
        return 0 if self.blob(facts).is_file() else partial.missing(self.part(facts), facts["size"])

    def entry(self, path: str, facts: Facts, tick: Tick) -> Entry | None:
        """The entry of a file that is there, and is what the commit has."""
        file = self.file(path)
        if not file.is_file():
            return None
        known = self._store.digests.known(file)
        try:
            entry = known or self._store.digests.read(file, path, tick)
            if known is not None:
                tick(known.size)
            if facts["size"] in (None, entry.size) and is_right(entry, facts, file):
                return entry
            tick(-entry.size)
        except FileNotFoundError:
            pass  # another build found it damaged, and has removed it
        return None

    def brought(self, path: str, facts: Facts) -> Entry | None:
        """The entry of a blob that another build, or another revision, has brought."""
        blob = self.blob(facts)
        if not blob.is_file():
            return None
        entry = self._store.digests.read(blob, path)
        return entry if entry.size == facts["size"] and is_right(entry, facts, blob) else None

    def put(self, path: str, facts: Facts) -> None:
        """Make a blob a file of the commit."""
        link(self.file(path), self.blob(facts))

    def discard(self, path: str) -> None:
        """Remove a file that is not what the commit has, and its blob."""
        file = self.file(path)
        blob = file.resolve()
        file.unlink(missing_ok=True)
        if blob.parent == self._blobs.resolve():  # and nothing of the user's own
            blob.unlink(missing_ok=True)


def link(file: Path, blob: Path) -> None:
    """Put a blob into a snapshot, as the client does: moved, where there are no links. Whoever reads the file meanwhile
    finds it, and whoever puts it there at the same time does the same."""
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f".mar-{uuid.uuid4().hex}")
    try:
        beside.symlink_to(os.path.relpath(blob, file.parent))
    except OSError:
        blob.replace(file)
    else:
        beside.replace(file)
