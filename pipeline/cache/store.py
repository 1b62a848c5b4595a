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

import errno
import fcntl
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from ..errors import InputError, StageError, disk_is_full
from ..files import atomic
from ..files.tree import Entry, Tick, Tree, canonical, scan, text_digest, walk
from . import folder as cache_folder

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


def changed(entry: Entry) -> StageError:
    """A file that the build began with is not there any more, or another one."""
    return StageError(
        f"{entry.path} changed during the build, or is gone.",
        "Something wrote to the checkpoint's folder, a training run perhaps, or emptied the cache.",
        "Build again when it is finished.",
    )


class Store:
    """The cache in the folder `root`. Raises OSError where the disk does; `warn` is told of damage. One that is
    `read_only` neither writes nor removes anything: what it learns it knows itself alone."""

    def __init__(self, root: Path, warn: Callable[[str], None] = lambda _: None, *, read_only: bool = False) -> None:
        self.root, self.read_only = root, read_only
        self._warn = warn
        self._warned: set[str] = set()
        # Of a read-only one:
        self._learned: dict[str, str] = {}
        self._seen: dict[Path, tuple[list[int], Entry]] = {}
        self._damaged: set[str] = set()

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

    def _outside(self, file: Path) -> Path:
        name = text_digest(str(file.absolute()))
        return self.root / "files" / name[:2] / f"{name}.json"

    # Use by several processes

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Hold the store for a build, beside other builds. What killed builds left is swept first, if none runs.
        Raises InputError where there can be no store; others' right to write to it is warned of."""
        with self._lock_file() as lock:
            if danger := cache_folder.risk(self.root):
                self.warn(danger)
            if lock is not None:
                if lock.writable():
                    try:
                        self._flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        self.sweep()
                    except BlockingIOError:
                        pass
                self._flock(lock, fcntl.LOCK_SH)
            yield

    def _lock_file(self) -> AbstractContextManager[IO[bytes] | None]:
        """The store's lock, open, and its folder marked as a cache; None if none is there, and none is to be made.
        Raises InputError if there can be no store at its place."""
        cache_folder.check(self.root)
        file = self.root / cache_folder.LOCK
        if self.read_only:
            try:
                return file.open("rb")
            except OSError:
                return nullcontext()
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            # Not through a link, which could be to anybody's file.
            lock = os.fdopen(os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666), "r+b", 0)
            cache_folder.mark(self.root)
            return lock
        except OSError as error:
            if disk_is_full(error):
                raise StageError(
                    f"The disk is full: there can be no cache at {self.root}.",
                    fix="Free some space there, or use --cache, or MAR_CACHE, for another disk.",
                ) from None
            if error.errno in (errno.EROFS, errno.EACCES) and file.is_file():
                return file.open("rb")
            raise InputError(
                f"The cache cannot be at {self.root}: {error.strerror}.",
                fix="Use --cache, or MAR_CACHE, for a folder that can be written to.",
            ) from None

    def _flock(self, lock: IO[bytes], how: int) -> None:
        try:
            fcntl.flock(lock, how)
        except BlockingIOError:
            raise
        except OSError as error:
            raise InputError(
                f"The cache cannot be at {self.root}: its file system has no locks ({error.strerror}).",
                fix="Use --cache, or MAR_CACHE, for a folder on a disk of this machine.",
            ) from None

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the store alone; BlockingIOError while a build runs."""
        with self._lock_file() as lock:
            if lock is not None:
                self._flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield

    @contextmanager
    def lock(self, key: str) -> Iterator[None]:
        """Hold one key, waiting for whoever is making it."""
        from filelock import FileLock

        folder = self.root / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{key}.lock"):
            yield

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
        value = self._note(self.key_file(stage, key), f"the {stage} result {key[:12]}")
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

    def _note(self, path: Path, what: str) -> Any:
        """A note's value; None if there is none, or a damaged one, which is told."""
        try:
            return atomic.read(path)
        except atomic.DamagedNote:
            self.warn(f"The cache is damaged: {what}. It is made again.")
        except OSError:
            pass
        return None

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
            known = self.known(file)
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
        with _if_writable():
            os.utime(self.key_file(record.stage, record.key))
            if self._note(latest, f"what {subject} used last") != value:
                atomic.write(latest, value)

    def latest(self, stage: str, subject: str) -> dict[str, Any] | None:
        """What the subject's last run of the stage was made of."""
        value = self._note(self._latest(stage, subject), f"what {subject} used last")
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
        if self.read_only:
            self._learned[name] = value
        elif self.recall(name) != value:
            with _if_writable():
                atomic.write(self._fact(name), {"name": name, "value": value})

    def recall(self, name: str) -> str | None:
        """The fact that was last kept under `name`."""
        if name in self._learned:
            return self._learned[name]
        found = self._note(self._fact(name), f"what {name} was")
        return None if found is None else str(found["value"])

    # Files outside the store

    def known(self, file: Path) -> Entry | None:
        """The digest of a file outside the store, if nothing about it has changed since it was read."""
        try:
            stamp = _stamp(file)
        except OSError:
            return None
        if file in self._seen and self._seen[file][0] == stamp:
            return self._seen[file][1]
        found = self._note(self._outside(file), f"the digest of {file}")
        return Entry(**found["entry"]) if found is not None and found["stat"] == stamp else None

    def read(self, file: Path, path: str, tick: Tick | None = None, *, links: bool = True) -> Entry:
        """The entry of a file outside the store, reading it only if it is not `known`. Without `links`, one that became
        a link meanwhile is not followed: it has changed."""
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
        """Keep the digest of a file outside the store, for as long as its stat stays what it is; as far as the store
        can be written to."""
        if self.read_only:
            self._seen[file] = _stamp(file), entry
            return
        with _if_writable():
            atomic.write(self._outside(file), {"stat": _stamp(file), "entry": asdict(entry), "file": str(file)})

    def forget(self, file: Path) -> None:
        """Know no digest of a file outside the store any more, so that it is read again."""
        self._seen.pop(file, None)
        note = self._outside(file)
        if not self.read_only and not cache_folder.leads_out(self.root, note):
            with _if_writable():
                note.unlink(missing_ok=True)


@contextmanager
def _if_writable() -> Iterator[None]:
    """What would be good to keep, but is no part of a result, is not kept in a cache that is read-only."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise


def _stamp(file: Path) -> list[int]:
    # A program can set the second time back, but not the third (inode(7)).
    stat = file.stat()
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
