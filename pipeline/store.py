"""The store: results of stages, their contents addressed by digest, found again by key.

    blobs/ab/abcd...          a file's bytes, read-only, named by their SHA-256
    trees/ab/abcd....json     a folder's listing (`tree.Tree`), named by its own digest
    keys/STAGE/KEY.json       a `Record`: what went into a stage's run, and the tree that came out
    latest/STAGE-SUBJECT.json the last key of a subject, so that a miss can be explained
    facts/                    what was learned from elsewhere: the commit that a branch was
    files/ab/abcd....json     digests of files outside the store, with the stat that they were read at
    locks/, tmp/              one lock a key; folders being filled

Whatever exists under its final name is whole: it was written beside it and renamed.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from .errors import InputError, StageError, disk_is_full
from .tree import Entry, Tick, Tree, canonical, scan, text_digest, walk

SCHEMA = 1


def key_of(material: dict[str, Any]) -> str:
    """The key of a stage's run: SHA-256 of the canonical JSON of everything that its result depends on."""
    return text_digest(canonical({"schema": SCHEMA, **material}))


@dataclass(frozen=True, kw_only=True)
class Record:
    """One cached result: `material` is what the key was made of, `origin` a folder outside the store that holds
    the tree's files (a checkpoint is never copied), `subject` whose build made it."""

    key: str
    stage: str
    tree: str
    material: dict[str, Any]
    subject: str
    origin: str | None = None
    facts: dict[str, Any] | None = None


def write_atomic(path: Path, text: str) -> None:
    """Write `text` beside `path`, then rename: a reader sees the old file or the new one, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def changed(entry: Entry) -> StageError:
    """A file that the build began with is not there any more, or another one."""
    return StageError(
        f"{entry.path} changed during the build, or is gone.",
        "Something wrote to the checkpoint's folder, a training run perhaps, or emptied the cache.",
        "Build again when it is finished.",
    )


class Store:
    """The cache in the folder `root`. Raises OSError where the disk does."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._use: IO[bytes] | None = None

    # Places

    def blob(self, sha256: str) -> Path:
        return self.root / "blobs" / sha256[:2] / sha256

    def _tree(self, digest: str) -> Path:
        return self.root / "trees" / digest[:2] / f"{digest}.json"

    def _key(self, stage: str, key: str) -> Path:
        return self.root / "keys" / stage / f"{key}.json"

    def _latest(self, stage: str, subject: str) -> Path:
        return self.root / "latest" / f"{stage}-{text_digest(subject)[:24]}.json"

    # Use by several processes

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Hold the store for a build, beside other builds. What killed builds left is swept first, if none runs."""
        with self._lock_file() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self.sweep()
            except BlockingIOError:
                pass
            fcntl.flock(lock, fcntl.LOCK_SH)
            yield

    def _lock_file(self) -> IO[bytes]:
        """The store's lock, open. Raises InputError if there can be no store at its place."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            return (self.root / "in-use.lock").open("ab")
        except OSError as error:
            if disk_is_full(error):
                raise
            raise InputError(
                f"The cache cannot be at {self.root}: {error.strerror}.",
                fix="Use --cache, or MAR_CACHE, for a folder that can be written to.",
            ) from None

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the store alone; BlockingIOError while a build runs."""
        with self._lock_file() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
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
        shutil.rmtree(self.root / "tmp", ignore_errors=True)
        shutil.rmtree(self.root / "locks", ignore_errors=True)

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

    def find(self, stage: str, key: str, origin: str | None = None) -> Record | None:
        """The record under `key`, if its files are all there in their right sizes; a damaged one is no record.
        `origin` is where the checkpoint's files lie now, if that is known already."""
        try:
            record = Record(**json.loads(self._key(stage, key).read_text(encoding="utf-8")))
            tree = self.tree(record.tree)
        except (OSError, ValueError, TypeError):
            return None
        where = origin or record.origin
        return record if all(self.locate(entry, where) for entry in tree) else None

    def tree(self, digest: str) -> Tree:
        """The listing of that digest. Raises OSError if it is gone, ValueError if it is damaged."""
        text = self._tree(digest).read_text(encoding="utf-8")
        if text_digest(text) != digest:
            raise ValueError(f"tree {digest} is damaged")
        return Tree.from_json(text)

    def locate(self, entry: Entry, origin: str | None) -> Path | None:
        """Where the bytes of `entry` lie: in the store, or unchanged in the folder that it came from."""
        blob = self.blob(entry.sha256)
        try:
            if blob.stat().st_size == entry.size:
                return blob
        except OSError:
            pass
        if origin is not None:
            file = Path(origin) / entry.path
            known = self.known(file)
            if known is not None and known.sha256 == entry.sha256:
                return file
        return None

    def commit(self, record: Record, tree: Tree) -> None:
        """Make `tree` findable under the record's key."""
        path = self._tree(tree.digest)
        if not path.exists():
            write_atomic(path, tree.to_json())
        write_atomic(self._key(record.stage, record.key), json.dumps(asdict(record), indent=1, sort_keys=True))
        self.touch(record, record.subject)

    def touch(self, record: Record, subject: str) -> None:
        """Note that `subject` uses the record now."""
        os.utime(self._key(record.stage, record.key))
        latest = self._latest(record.stage, subject)
        text = json.dumps({"subject": subject, "key": record.key, "material": record.material}, sort_keys=True)
        try:
            if latest.read_text(encoding="utf-8") == text:
                return
        except OSError:
            pass
        write_atomic(latest, text)

    def latest(self, stage: str, subject: str) -> dict[str, Any] | None:
        """What the subject's last run of the stage was made of."""
        try:
            return dict(json.loads(self._latest(stage, subject).read_text(encoding="utf-8"))["material"])
        except (OSError, ValueError, KeyError):
            return None

    def take(self, folder: Path, tick: Tick | None = None) -> list[Entry]:
        """Move every file of `folder` (on the store's file system) into blobs, read-only."""
        entries = []
        for file, path in walk(folder):
            entry = scan(file, path, tick)
            blob = self.blob(entry.sha256)
            blob.parent.mkdir(parents=True, exist_ok=True)
            file.chmod(0o444)
            file.replace(blob)
            entries.append(entry)
        return entries

    def sound(self, entry: Entry, tick: Tick | None = None) -> bool:
        """Whether the blob of an entry still holds its bytes; a damaged one is removed, so that it is made again."""
        blob = self.blob(entry.sha256)
        if blob.exists() and scan(blob, entry.path, tick).sha256 == entry.sha256:
            return True
        blob.unlink(missing_ok=True)
        return False

    def lay_out(self, tree: Tree, origin: str | None, folder: Path) -> Path:
        """Fill `folder` with links to the tree's files: hard links to blobs, symbolic ones to the user's files,
        which may change under us. Raises StageError if one did."""
        folder.mkdir(parents=True, exist_ok=True)
        for entry in tree:
            place = folder / entry.path
            place.parent.mkdir(parents=True, exist_ok=True)
            source = self.locate(entry, origin)
            if source is None:
                raise changed(entry)
            if source == self.blob(entry.sha256):
                os.link(source, place)
            else:
                place.symlink_to(source.resolve())
        return folder

    # Small facts

    def remember(self, name: str, value: str) -> None:
        """Keep a fact that was learned, such as the commit that a branch was."""
        if self.recall(name) != value:
            write_atomic(self.root / "facts" / text_digest(name)[:24], json.dumps({"name": name, "value": value}))

    def recall(self, name: str) -> str | None:
        """The fact that was last kept under `name`."""
        try:
            return str(json.loads((self.root / "facts" / text_digest(name)[:24]).read_text(encoding="utf-8"))["value"])
        except (OSError, ValueError, KeyError):
            return None

    # Files outside the store

    def _known(self, file: Path) -> Path:
        name = text_digest(str(file.absolute()))
        return self.root / "files" / name[:2] / f"{name}.json"

    def known(self, file: Path) -> Entry | None:
        """The digest of a file outside the store, if it was read since its last change (size, time, inode)."""
        try:
            stat = file.stat()
            note = json.loads(self._known(file).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        same = note["stat"] == [stat.st_size, stat.st_mtime_ns, stat.st_ino]
        return Entry(**note["entry"]) if same else None

    def read(self, file: Path, path: str, tick: Tick | None = None) -> Entry:
        """The entry of a file outside the store, reading it only if it is not `known`."""
        known = self.known(file)
        if known is not None:
            return Entry(path, known.sha256, known.size, known.crc32)
        before = file.stat()
        entry = scan(file, path, tick)
        after = file.stat()
        stamp = [after.st_size, after.st_mtime_ns, after.st_ino]
        if [before.st_size, before.st_mtime_ns, before.st_ino] != stamp:
            raise changed(entry)
        self.know(file, entry)
        return entry

    def know(self, file: Path, entry: Entry) -> None:
        """Keep the digest of a file outside the store, for as long as its stat stays what it is."""
        stat = file.stat()
        note = {
            "stat": [stat.st_size, stat.st_mtime_ns, stat.st_ino],
            "entry": asdict(entry),
            "file": str(file),
        }
        write_atomic(self._known(file), json.dumps(note, sort_keys=True))

    # Housekeeping

    def records(self) -> Iterable[tuple[Record, float]]:
        """Every readable record, with the time of its last use (seconds since the epoch)."""
        for path in sorted(self.root.glob("keys/*/*.json")):
            try:
                yield Record(**json.loads(path.read_text(encoding="utf-8"))), path.stat().st_mtime
            except (OSError, ValueError, TypeError):
                continue

    def forget(self, record: Record) -> None:
        self._key(record.stage, record.key).unlink(missing_ok=True)

    def collect(self, *, max_size: int | None = None, older_than: float | None = None, dry_run: bool = False) -> int:
        """Forget records unused for `older_than` seconds, then the longest unused while the store is over
        `max_size` bytes, then remove all that no record names. Returns the bytes freed (or that would be)."""
        records = sorted(self.records(), key=lambda pair: pair[1])
        trees: dict[str, Tree] = {}
        for record, _ in records:
            try:
                trees[record.tree] = self.tree(record.tree)
            except (OSError, ValueError):
                continue
        keep = [(record, used) for record, used in records if record.tree in trees]
        if older_than is not None:
            keep = [(record, used) for record, used in keep if time.time() - used <= older_than]

        def live() -> set[str]:
            return {entry.sha256 for record, _ in keep for entry in trees[record.tree]}

        sizes = {path.name: path.stat().st_size for path in self.root.glob("blobs/*/*")}
        while max_size is not None and keep and sum(sizes.get(sha, 0) for sha in live()) > max_size:
            keep.pop(0)
        wanted = live()
        freed = sum(size for sha, size in sizes.items() if sha not in wanted)
        if not dry_run:
            kept = {(record.stage, record.key) for record, _ in keep}
            for path in self.root.glob("keys/*/*.json"):
                if (path.parent.name, path.stem) not in kept:
                    path.unlink()
            used_trees = {record.tree for record, _ in keep}
            for path in self.root.glob("trees/*/*.json"):
                if path.stem not in used_trees:
                    path.unlink()
            for sha in sizes.keys() - wanted:
                self.blob(sha).unlink()
            for hidden in self.root.glob("*/**/.*"):
                hidden.unlink()
            self.sweep()
        return freed

    def damage(self, *, repair: bool = False, tick: Tick | None = None) -> list[str]:
        """Read everything again; a line for each file that is not what its name says. `repair` removes them,
        so that the next build makes them anew."""
        found = []
        for path in sorted(self.root.glob("blobs/*/*")):
            if scan(path, path.name, tick).sha256 != path.name:
                found.append(f"blob {path.name} does not hold the bytes of its name")
                if repair:
                    path.unlink()
        for path in sorted(self.root.glob("trees/*/*.json")):
            try:
                self.tree(path.stem)
            except ValueError:
                found.append(f"tree {path.stem} is damaged")
                if repair:
                    path.unlink()
        for path in sorted(self.root.glob("keys/*/*.json")):
            try:
                external = json.loads(path.read_text(encoding="utf-8"))["origin"] is not None
            except (OSError, ValueError, KeyError):
                external = False
            # A checkpoint outside the store may change or go: that is no damage here.
            if not external and self.find(path.parent.name, path.stem) is None:
                found.append(f"the {path.parent.name} result {path.stem[:12]} lacks files")
                if repair:
                    path.unlink()
        return found
