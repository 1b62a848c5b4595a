"""The Hugging Face cache, in the layout of the Hub's client: the paths of a commit's files, and which are complete.

models--ORG--NAME/        a repository
    refs/REVISION         the commit that a revision pointed to
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
from ...files.opening import read_text
from ...files.tree import Entry, Tick
from ...model.address import is_commit
from ..transfer import partial
from .listing import SHA1, SHA256, Facts, etag, matches


def folder_of(repo: str) -> Path:
    """The cache folder of a repository."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}"


def reference(folder: Path, revision: str) -> str | None:
    """The commit that a revision pointed to when the repository in `folder` was last downloaded; None if unknown."""
    with suppress(OSError, ValueError):
        commit = read_text(folder / "refs" / revision, 1000).strip()
        return commit if is_commit(commit) else None
    return None


def keep_reference(folder: Path, revision: str, commit: str) -> None:
    """Write the commit that a revision points to."""
    write_atomic(folder / "refs" / revision, commit)


class Snapshot:
    """A commit of the repository with the cache folder `folder`. The files' digests are remembered in `store`."""

    def __init__(self, folder: Path, commit: str, store: Store) -> None:
        self._blobs, self._files, self._store = folder / "blobs", folder / "snapshots" / commit, store

    def file(self, path: str) -> Path:
        """The path of a file of the commit, which may not exist."""
        return self._files / path

    def blob(self, facts: Facts) -> Path:
        """The path of a file's content, which may not exist."""
        return self._blobs / etag(facts)

    def part(self, facts: Facts) -> Path:
        """The path of a partial download."""
        # The suffix is the client's own: its tools may remove such files.
        return self._blobs / f"{etag(facts)}.mar.incomplete"

    def listing(self) -> dict[str, dict[str, Any]]:
        """The facts of each file of the commit in the cache, by path."""
        facts = {}
        for file in self._files.rglob("*"):
            if file.is_file():
                # A blob's name is its ETag: the SHA-256 of a large file, git's SHA-1 of another.
                name = file.resolve().name
                facts[file.relative_to(self._files).as_posix()] = {
                    "size": file.stat().st_size,
                    "sha256": name if SHA256.fullmatch(name) else None,
                    "git": name if SHA1.fullmatch(name) else None,
                }
        return facts

    def missing(self, facts: Facts) -> int:
        """The bytes of a file that are still to be downloaded."""
        # A blob may exist already: another revision has the same content.
        return 0 if self.blob(facts).is_file() else partial.missing(self.part(facts), facts["size"])

    def entry(self, path: str, facts: Facts, tick: Tick) -> Entry | None:
        """The entry of a file of the commit; None if it is missing or damaged. `tick` gets its bytes."""
        file = self.file(path)
        if not file.is_file():
            return None
        known = self._store.digests.known(file)
        try:
            entry = known or self._store.digests.read(file, path, tick)
            if known is not None:
                tick(known.size)
            if facts["size"] in (None, entry.size) and matches(entry, facts, file):
                return entry
            tick(-entry.size)
        except FileNotFoundError:
            pass  # another build has removed the damaged file
        return None

    def existing_blob(self, path: str, facts: Facts) -> Entry | None:
        """The entry of a complete blob, from another build or another revision; None if there is none."""
        blob = self.blob(facts)
        if not blob.is_file():
            return None
        entry = self._store.digests.read(blob, path)
        return entry if entry.size == facts["size"] and matches(entry, facts, blob) else None

    def put(self, path: str, facts: Facts) -> None:
        """Add a blob to the commit's files."""
        link(self.file(path), self.blob(facts))

    def discard(self, path: str) -> None:
        """Remove a damaged file, and its blob."""
        file = self.file(path)
        blob = file.resolve()
        file.unlink(missing_ok=True)
        if blob.parent == self._blobs.resolve():  # not a file outside of the cache
            blob.unlink(missing_ok=True)


def link(file: Path, blob: Path) -> None:
    """Link a snapshot's file to a blob, as the client does; without symbolic links, move the blob there. The file is
    replaced atomically, so concurrent readers and writers are safe."""
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f".mar-{uuid.uuid4().hex}")
    try:
        beside.symlink_to(os.path.relpath(blob, file.parent))
    except OSError:
        blob.replace(file)
    else:
        beside.replace(file)
