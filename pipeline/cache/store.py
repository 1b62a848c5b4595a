"""The store: results of stages, their contents addressed by digest, found again by key.

    blobs/ab/abcd...          a file's bytes, read-only, named by their SHA-256, with the modification time SEALED
    trees/ab/abcd....json     a folder's listing (`tree.Tree`), named by its own digest
    keys/STAGE/KEY.json       a `Record`: what went into a stage's run, and the tree that came out
    latest/STAGE-SUBJECT.json the last key of a subject, so that a miss can be explained
    facts/                    what was learned from elsewhere: the commit that a branch was
    files/ab/abcd....json     digests of files outside the store, with the stat that they were read at
    partial/....incomplete    files on their way here from an object store, by address, path and the store's own mark
    locks/, tmp/              one lock a key; folders being filled
    CACHEDIR.TAG              that this is a cache of ours (`folder`)

Whatever exists under its final name is whole: it was written beside it and renamed. What was damaged since is told to
`warn`, and is as good as not there: notes hold their own digests, a blob that was written to has another time than
SEALED and is read again, and whoever uses contents holds them against their digests (`intact`, `archive.writer`).
"""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..files import atomic
from ..files.tree import Entry, Tree, canonical, scan, text_digest, walk
from . import folder as cache_folder
from .digests import Digests, changed
from .locks import Locks
from .notes import Notes

SCHEMA = 1

SEALED = 315_532_800 * 10**9
"""Nanoseconds since the epoch: the first of 1980, which no clock shows any more, so that whoever writes to a blob
changes its time."""

SMALL = 32 << 20
"""Bytes of a file that is read for its digest each time it is used. A larger one is read for it where it is laid out
(`Store.lay_out`); packed in an archive, it is when that is verified."""


def key_of(material: dict[str, Any]) -> str:
    """The key of a stage's run: SHA-256 of the canonical JSON of everything that its result depends on."""
    return text_digest(canonical({"schema": SCHEMA, **material}))


@dataclass(frozen=True, kw_only=True)
class Record:
    """One cached result: `material` is what the key was made of, `places` the files outside the store that are
    the tree's, by their paths in it (a checkpoint is never copied), `subject` whose build made it of which `model`, and
    when it was `made` (seconds since the epoch)."""

    key: str
    stage: str
    tree: str
    material: dict[str, Any]
    subject: str
    model: str = ""
    made: float = field(default_factory=time.time)
    places: dict[str, str] = field(default_factory=dict)


Places = Mapping[str, str]
"""Files outside the store, by their paths in a tree."""


class Damaged(Exception):
    """A blob does not hold its bytes; it is gone now, so whatever needs it is made again."""


class Store:
    """The cache in the folder `root`. Raises OSError where the disk does; `warn` is told of damage. One that is
    `read_only` neither writes nor removes anything: what it learns it knows itself alone."""

    def __init__(self, root: Path, warn: Callable[[str], None] = lambda _: None, *, read_only: bool = False) -> None:
        self.root, self.read_only = root, read_only
        self._warn = warn
        self._warned: set[str] = set()
        self._damaged: set[str] = set()  # the digests of blobs that should be gone, and cannot be removed
        self.locks = Locks(root, read_only=read_only)
        self.notes = Notes(root, self.warn, read_only=read_only)
        self.digests = Digests(root, self.notes)

    def warn(self, text: str) -> None:
        if text not in self._warned:
            self._warned.add(text)
            self._warn(text)

    # Places

    def blob(self, sha256: str) -> Path:
        return self.root / "blobs" / sha256[:2] / sha256

    def tree_file(self, digest: str) -> Path:
        return self.root / "trees" / digest[:2] / f"{digest}.json"

    def key_file(self, stage: str, key: str) -> Path:
        return self.root / "keys" / stage / f"{key}.json"

    def _latest(self, stage: str, subject: str) -> Path:
        return self.root / "latest" / f"{stage}-{text_digest(subject)[:24]}.json"

    def _fact(self, name: str) -> Path:
        return self.root / "facts" / text_digest(name)[:24]

    # Use by several processes

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Hold the store for a build, beside other builds. What killed builds left is swept first, if none runs.
        Raises InputError where there can be no store; others' right to write to it is warned of."""
        with self.locks.shared(first=self.sweep):
            if danger := cache_folder.risk(self.root):
                self.warn(danger)
            yield

    def exclusive(self) -> AbstractContextManager[None]:
        """Hold the store alone; BlockingIOError while a build runs."""
        return self.locks.alone()

    def lock(self, key: str) -> AbstractContextManager[None]:
        """Hold one key, waiting for whoever is making it."""
        return self.locks.of_key(key)

    def sweep(self) -> None:
        """Remove what killed builds left; only while nobody else uses the store."""
        for folder in cache_folder.paths(self.root, "tmp"):
            shutil.rmtree(folder, ignore_errors=True)
        for file in cache_folder.paths(self.root, "locks"):
            file.unlink(missing_ok=True)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A fresh folder on the store's file system, gone afterwards."""
        folder = self.root / "tmp" / uuid.uuid4().hex
        folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    # Results

    def find(self, stage: str, key: str, places: Places | None = None) -> Record | None:
        """The record under `key`, if its files are all there; a damaged one is told, and is no record.
        `places` are where the checkpoint's files lie now, if that is known already."""
        value = self.notes.read(self.key_file(stage, key), f"the {stage} result {key[:12]}")
        try:
            record = Record(**value)
            tree = self.tree(record.tree)
        except (OSError, TypeError):
            return None
        except ValueError:
            self.warn(f"The cache is damaged: the listing of the {stage} result {key[:12]}. It is made again.")
            return None
        where = places or record.places
        return record if all(self.locate(entry, where) for entry in tree) else None

    def tree(self, digest: str) -> Tree:
        """The listing of that digest. Raises OSError if it is gone, ValueError if it is damaged."""
        text = self.tree_file(digest).read_bytes().decode()
        if text_digest(text) != digest:
            raise ValueError(f"tree {digest} is damaged")
        return Tree.from_json(text)

    def locate(self, entry: Entry, places: Places) -> Path | None:
        """Where the bytes of `entry` lie: in the store, or unchanged at its place outside."""
        blob = self.blob(entry.sha256)
        try:
            stat = blob.stat()
            if entry.sha256 in self._damaged:
                pass
            elif (stat.st_size == entry.size and stat.st_mtime_ns == SEALED) or self.intact(entry):
                return blob
        except OSError:
            pass
        if entry.path in places:
            file = Path(places[entry.path])
            known = self.digests.known(file)
            if known is not None and known.sha256 == entry.sha256:
                return file
        return None

    def intact(self, entry: Entry) -> bool:
        """Whether the blob of an entry holds its bytes, which are read; one that does not is told, and removed."""
        blob = self.blob(entry.sha256)
        try:
            if scan(blob, entry.path).sha256 == entry.sha256:
                if not self.read_only:
                    with suppress(OSError):
                        os.utime(blob, ns=(time.time_ns(), SEALED))
                return True
        except FileNotFoundError:
            return False
        self.warn(
            f"The cache is damaged: {entry.path} ({entry.sha256[:12]}) is not what was written. It is made again."
        )
        self.discard(entry)
        return False

    def discard(self, entry: Entry) -> None:
        """Remove the blob of an entry, so that every result that needs it is made anew."""
        blob = self.blob(entry.sha256)
        if self.read_only or cache_folder.leads_out(self.root, blob):
            self._damaged.add(entry.sha256)
            return
        with suppress(OSError):
            blob.unlink()

    def use(self, entry: Entry, places: Places, *, whole: bool = False) -> Path:
        """The file of an entry, for whoever reads it now; a SMALL one in the store, and a larger one too if it is to be
        known `whole`, was read to see whether it is what it should be. Raises Damaged; StageError if it is gone, or
        changed where it lies outside."""
        source = self.locate(entry, places)
        if source is None:
            raise changed(entry)
        if source == self.blob(entry.sha256) and (whole or entry.size <= SMALL) and not self.intact(entry):
            raise Damaged(entry.path)
        return source

    def commit(self, record: Record, tree: Tree) -> None:
        """Make `tree` findable under the record's key."""
        atomic.write_atomic(self.tree_file(tree.digest), tree.to_json())
        atomic.write(self.key_file(record.stage, record.key), asdict(record))

    def touch(self, record: Record, subject: str) -> None:
        """Note that `subject` uses the record now, as far as the store can be written to."""
        latest = self._latest(record.stage, subject)
        value = {"stage": record.stage, "subject": subject, "key": record.key, "material": record.material}
        with atomic.if_writable():
            os.utime(self.key_file(record.stage, record.key))
            if self.notes.read(latest, f"what {subject} used last") != value:
                self.notes.write(latest, value)

    def latest(self, stage: str, subject: str) -> dict[str, Any] | None:
        """What the subject's last run of the stage was made of."""
        value = self.notes.read(self._latest(stage, subject), f"what {subject} used last")
        return None if value is None else dict(value["material"])

    def take(self, folder: Path, known: Mapping[str, Entry] | None = None) -> list[Entry]:
        """Move every file of `folder` (on the store's file system) into blobs; the entries, which are `known` already
        for files that were digested while they were written."""
        entries = []
        for file, path in walk(folder):
            entry = (known or {}).get(path) or scan(file, path)
            self.adopt(file, entry)
            entries.append(entry)
        return entries

    def adopt(self, file: Path, entry: Entry) -> None:
        """Make a file (on the store's file system), whose entry that is, a blob."""
        blob = self.blob(entry.sha256)
        blob.parent.mkdir(parents=True, exist_ok=True)
        file.chmod(0o444)
        os.utime(file, ns=(time.time_ns(), SEALED))
        file.replace(blob)
        self._damaged.discard(entry.sha256)

    def lay_out(self, tree: Tree, places: Places, folder: Path, *, whole: bool = True) -> Path:
        """Fill `folder` with symbolic links to the tree's files, not to be written to. All that lie in the store are
        read for their digests first, or the SMALL ones alone if the others are known to be `whole`. Raises as `use`
        does."""
        folder.mkdir(parents=True, exist_ok=True)
        for entry in tree:
            place = folder / entry.path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(self.use(entry, places, whole=whole).resolve())
        return folder

    # Small facts

    def remember(self, name: str, value: str) -> None:
        """Keep a fact that was learned, such as the commit that a branch was, as far as the store can be written to."""
        if self.recall(name) != value:
            self.notes.write(self._fact(name), {"name": name, "value": value})

    def recall(self, name: str) -> str | None:
        """The fact that was last kept under `name`."""
        found = self.notes.read(self._fact(name), f"what {name} was")
        return None if found is None else str(found["value"])
