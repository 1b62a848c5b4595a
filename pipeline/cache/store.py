"""The store: stage results by key, their contents addressed by digest.

    blobs/ab/abcd...          a file's bytes, read-only, named by their SHA-256, with the modification time SEALED
    trees/ab/abcd....json     a folder's listing (`tree.Tree`), named by its own digest
    keys/STAGE/KEY.json       a `Record`: the inputs of a stage's run, and the resulting tree
    latest/STAGE-SUBJECT.json the last key of a subject, so that a miss can be explained
    facts/                    remote facts, such as the commit of a branch
    files/ab/abcd....json     digests of files outside the store, with their stat at the time
    partial/....incomplete    incomplete downloads from object stores, by address, path and ETag
    locks/, tmp/              a lock for each key; folders that are being filled
    CACHEDIR.TAG              marks the folder as a cache of this program (`folder`)

Writes are atomic: files are written under a temporary name and renamed. Damage is reported to `warn`, and a damaged
file counts as missing: notes contain their own digests, a blob whose mtime is not SEALED is read again, and contents
are checked against their digests when they are used (`intact`, `archive.writer`).
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..files import atomic, private
from ..files.tree import Entry, Tree, canonical, scan, text_digest, walk
from . import folder as cache_folder
from .digests import Digests, changed
from .locks import Locks
from .notes import Notes

SCHEMA = 1

SEALED = 315_532_800 * 10**9
"""mtime of a sealed blob, in nanoseconds since the epoch (1980-01-01). No current clock yields it, so a later write is
visible as a changed mtime."""

SMALL = 32 << 20
"""Bytes. Files up to this size are hashed each time they are used; larger ones in `Store.lay_out`, or while they are
packed into an archive."""


def key_of(material: dict[str, Any]) -> str:
    """The key of a stage's run: SHA-256 of the canonical JSON of everything that its result depends on."""
    return text_digest(canonical({"schema": SCHEMA, **material}))


@dataclass(frozen=True, kw_only=True)
class Record:
    """One cached result. `material` is what the key is the digest of; `places` maps paths in the tree to files outside
    the store (a checkpoint is never copied); `subject` is the build that made it, of `model`; `made` the time, in
    seconds since the epoch."""

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
    """A blob does not match its digest. It has been removed, so that everything that needs it is rebuilt."""


class Store:
    """The cache at `root`. `warn` is called with a line for each damage. With `read_only`, nothing is written or
    removed; new facts stay in memory. Raises OSError for errors of the disk."""

    def __init__(self, root: Path, warn: Callable[[str], None] = lambda _: None, *, read_only: bool = False) -> None:
        # Workers run in folders of their own.
        root = root.absolute()
        self.root, self.read_only = root, read_only
        self._warn = warn
        self._warned: set[str] = set()
        self._damaged: set[str] = set()  # the digests of damaged blobs that cannot be removed
        self.locks = Locks(root, self.warn, read_only=read_only)
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
        """Use the store for a build; other builds may use it too. The folders of killed builds are removed first.
        Warns if other users can write to the store. Raises InputError if `root` cannot be a cache."""
        with self.locks.shared(first=self.sweep):
            self.drop_texts()
            if danger := cache_folder.risk(self.root):
                self.warn(danger)
            yield

    def exclusive(self) -> AbstractContextManager[None]:
        """Use the store exclusively. Raises BlockingIOError while a build runs."""
        return self.locks.alone()

    def lock(self, key: str) -> AbstractContextManager[None]:
        """Lock one key; waits while another build makes its result."""
        return self.locks.of_key(key)

    def sweep(self) -> None:
        """Remove the leftovers of killed builds; only while nobody else uses the store."""
        for folder in cache_folder.paths(self.root, "tmp"):
            shutil.rmtree(folder, ignore_errors=True)
        for file in cache_folder.paths(self.root, "locks"):
            file.unlink(missing_ok=True)

    def drop_texts(self) -> None:
        """Remove the folders of killed commands, which may hold users' texts, whoever else uses the store."""
        private.sweep(cache_folder.paths(self.root, "tmp"))

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A new folder on the store's file system that only this user can read, removed afterwards."""
        (self.root / "tmp").mkdir(parents=True, exist_ok=True)
        with private.Folder(self.root / "tmp") as folder:
            yield folder

    # Results

    def find(self, stage: str, key: str, places: Places | None = None) -> Record | None:
        """The record under `key` if all its files exist, else None; of a damaged one, warns.

        `places` are the current places of the checkpoint's files, if they are known already.
        """
        value = self.notes.read(self.key_file(stage, key), f"the {stage} result {key[:12]}")
        try:
            record = Record(**value)
            tree = self.tree(record.tree)
        except (OSError, TypeError):
            return None
        except ValueError:
            self.warn(f"The cache is damaged: the listing of the {stage} result {key[:12]}. It is rebuilt.")
            return None
        where = places or record.places
        return record if all(self.locate(entry, where) for entry in tree) else None

    def tree(self, digest: str) -> Tree:
        """The tree with this digest. Raises OSError if it is missing, ValueError if it is damaged."""
        text = self.tree_file(digest).read_bytes().decode()
        if text_digest(text) != digest:
            raise ValueError(f"tree {digest} is damaged")
        return Tree.from_json(text)

    def locate(self, entry: Entry, places: Places) -> Path | None:
        """The file with the bytes of `entry`: a blob, or an unchanged file outside the store; None if there is none."""
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
            current = self.digests.known(file)
            if current is not None and current.sha256 == entry.sha256:
                return file
        return None

    def intact(self, entry: Entry) -> bool:
        """Whether the blob of an entry matches its digest, by reading it; warns and removes it if it does not."""
        blob = self.blob(entry.sha256)
        try:
            if scan(blob, entry.path).sha256 == entry.sha256:
                if not self.read_only:
                    with suppress(OSError):
                        os.utime(blob, ns=(time.time_ns(), SEALED))
                return True
        except FileNotFoundError:
            return False
        self.warn(f"The cache is damaged: {entry.path} ({entry.sha256[:12]}) is not what was written. It is rebuilt.")
        self.discard(entry)
        return False

    def discard(self, entry: Entry) -> None:
        """Remove the blob of an entry, so that every result that needs it is rebuilt."""
        blob = self.blob(entry.sha256)
        if self.read_only or cache_folder.leads_out(self.root, blob):
            self._damaged.add(entry.sha256)
            return
        with suppress(OSError):
            blob.unlink()

    def use(self, entry: Entry, places: Places, *, whole: bool = False) -> Path:
        """The file of an entry, to be read now. A blob is checked against its digest first if it is SMALL, or with
        `whole`.

        Raises Damaged for a blob that does not match, StageError for a file that is missing or changed.
        """
        source = self.locate(entry, places)
        if source is None:
            raise changed(entry)
        if source == self.blob(entry.sha256) and (whole or entry.size <= SMALL) and not self.intact(entry):
            raise Damaged(entry.path)
        return source

    def commit(self, record: Record, tree: Tree) -> None:
        """Store the tree, and the record under its key."""
        atomic.write_atomic(self.tree_file(tree.digest), tree.to_json())
        atomic.write(self.key_file(record.stage, record.key), asdict(record))

    def touch(self, record: Record, subject: str) -> None:
        """Note that `subject` uses the record now, if the store is writable."""
        latest = self._latest(record.stage, subject)
        value = {"stage": record.stage, "subject": subject, "key": record.key, "material": record.material}
        with atomic.if_writable():
            os.utime(self.key_file(record.stage, record.key))
            if self.notes.read(latest, f"what {subject} used last") != value:
                self.notes.write(latest, value)

    def latest(self, stage: str, subject: str) -> dict[str, Any] | None:
        """The key material of the subject's last run of the stage; None if there is none."""
        value = self.notes.read(self._latest(stage, subject), f"what {subject} used last")
        return None if value is None else dict(value["material"])

    def take(self, folder: Path, known: Mapping[str, Entry] | None = None) -> list[Entry]:
        """Move every file of `folder` (on the store's file system) into blobs and return the entries. Files in `known`
        were hashed while they were written, and are not read again."""
        entries = []
        for file, path in walk(folder):
            entry = (known or {}).get(path) or scan(file, path)
            self.adopt(file, entry)
            entries.append(entry)
        return entries

    def adopt(self, file: Path, entry: Entry) -> None:
        """Move a file (on the store's file system) with this entry into a blob."""
        blob = self.blob(entry.sha256)
        blob.parent.mkdir(parents=True, exist_ok=True)
        file.chmod(0o444)
        os.utime(file, ns=(time.time_ns(), SEALED))
        file.replace(blob)
        self._damaged.discard(entry.sha256)

    def lay_out(self, tree: Tree, places: Places, folder: Path, *, whole: bool = True) -> Path:
        """Fill `folder` with symbolic links to the tree's files, which are read-only. Blobs are checked against their
        digest first: all of them with `whole`, else the SMALL ones. Raises as `use` does."""
        folder.mkdir(parents=True, exist_ok=True)
        for entry in tree:
            place = folder / entry.path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(self.use(entry, places, whole=whole).resolve())
        return folder

    # Small facts

    def remember(self, name: str, value: str) -> None:
        """Store a remote fact, such as the commit of a branch, if the store is writable."""
        if self.recall(name) != value:
            self.notes.write(self._fact(name), {"name": name, "value": value})

    def recall(self, name: str) -> str | None:
        """The fact that was last stored under `name`; None if there is none."""
        note = self.notes.read(self._fact(name), f"what {name} was")
        return None if note is None else str(note["value"])
