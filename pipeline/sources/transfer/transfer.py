"""Downloads from an address into the store: resumable, checked against every known digest, and accepted only if the
source did not change meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ...cache.store import Store
from ...errors import MarError, StageError
from ...files.tree import Entry, Tick, text_digest
from ...model.lock import File
from ..source import Progress
from . import partial
from .parallel import each
from .partial import Partial

FOLDER = "partial"
"""The store's folder for partial files."""


@dataclass(frozen=True, kw_only=True)
class Object:
    """A file at an address: its size in bytes, a `mark` that changes with its contents (an ETag), and their MD5
    (hexadecimal; None if unknown)."""

    size: int
    mark: str
    md5: str | None = None


class Reader(Protocol):
    """Reads the files at an address. Its methods may raise any exception of their library: `translate` turns it into a
    MarError, and `wait` decides on another attempt."""

    def list(self) -> dict[str, Object]:
        """Every current file, by its path below the address."""

    def start(self, path: str, count: int) -> bytes:
        """The first `count` bytes of a file."""

    def puller(self, path: str, size: int) -> Callable[[Partial], None]:
        """A function that appends the missing bytes of a file."""

    def matches(self, path: str, thing: Object, file: Path) -> bool | None:
        """Whether the contents of the local `file` are those at the address; None if the address cannot show it."""

    def wait(self, error: Exception) -> float | None:
        """The seconds to wait before another attempt; None for an error that another attempt would not fix."""

    def translate(self, error: Exception) -> MarError:
        """The error as a MarError."""


def changed(where: str) -> StageError:
    """The error for a source that changed during a download."""
    return StageError(
        f"{where} changed while it was read.",
        "Something is writing to it, perhaps a training run.",
        "Build again when that has finished.",
    )


def _is_local(error: Exception) -> bool:
    """Whether an error is about a local file."""
    return isinstance(error, OSError) and str(error.filename).startswith("/")


@contextmanager
def errors(reader: Reader) -> Iterator[None]:
    """Translate the reader's errors to MarError; errors about local files pass unchanged."""
    try:
        yield
    except MarError:
        raise
    except Exception as error:
        if _is_local(error):
            raise
        raise reader.translate(error) from None


class Transfer:
    """A download of files of the source `where`, whose listing is `objects`, into a store."""

    def __init__(self, store: Store, where: str, reader: Reader, objects: Mapping[str, Object]) -> None:
        self.store, self.where, self.reader, self.objects = store, where, reader, objects

    def fetch(self, paths: Collection[str], locked: Mapping[str, File], progress: Progress) -> dict[str, Entry]:
        """Download files to their partial files, completely; their entries by path. A `locked` file has the locked
        contents, or the source's if these are certain (then the caller reports the difference). Raises StageError,
        InputError."""
        self._refuse_too_little_room(paths)
        total, done = sum(self.objects[path].size for path in paths), 0

        def tick(count: int) -> None:
            nonlocal done
            done += count
            progress(f"downloading {self.where}", done, total)

        def one(path: str) -> tuple[str, Entry]:
            return path, self._whole(path, locked.get(path), tick)

        tick(0)
        with errors(self.reader):
            with self._changes(paths):
                # The largest first: they take the longest.
                entries = dict(each(sorted(paths, key=lambda path: -self.objects[path].size), one))
            self._refuse_changed(paths)
        return entries

    def adopt(self, entries: Mapping[str, Entry]) -> None:
        """Move downloaded files into the store, as blobs."""
        for path, entry in entries.items():
            self.store.adopt(self._part(path), entry)
            self.store.digests.know(self.store.blob(entry.sha256), entry)

    def _part(self, path: str) -> Path:
        return self.store.root / FOLDER / f"{text_digest(f'{self.where}/{path} {self.objects[path].mark}')}.incomplete"

    def _refuse_too_little_room(self, paths: Collection[str]) -> None:
        size = sum(partial.missing(self._part(path), self.objects[path].size) for path in paths)
        partial.refuse_too_little_room(self.store.root, size, self.where)

    def _whole(self, path: str, locked: File | None, tick: Tick) -> Entry:
        """Complete the partial file of `path`; its entry."""
        thing, part = self.objects[path], self._part(path)
        seen: list[str] = []

        def valid(entry: Entry) -> bool:
            if locked is not None and entry.sha256 == locked.sha256:
                return True
            verdict = self.reader.matches(path, thing, part)
            if verdict is None and locked is not None:
                # The same bytes twice: they are the source's, not a transmission error.
                verdict = entry.sha256 in seen
                seen.append(entry.sha256)
            return verdict is not False

        pull, what = self.reader.puller(path, thing.size), f"{path} of {self.where}"
        with Partial(part, tick, thing.size) as into:
            partial.complete(into, thing.size, pull, valid, self.reader.wait, what, "Try another network.")
            return into.entry(path)

    def _refuse_changed(self, paths: Collection[str]) -> None:
        """Raise StageError if files differ from the listing now."""
        now = self.reader.list()
        if any(now.get(path) != self.objects[path] for path in paths):
            raise changed(self.where)

    @contextmanager
    def _changes(self, paths: Collection[str]) -> Iterator[None]:
        """Turn an error into "changed while it was read" if the listing differs now."""
        try:
            yield
        except Exception as error:
            if self.reader.wait(error) is None and not _is_local(error):
                with suppress(Exception):  # the first error is more useful than a second one
                    now = self.reader.list()
                    if any(now.get(path) != self.objects[path] for path in paths):
                        error = changed(self.where)
            raise error from None
