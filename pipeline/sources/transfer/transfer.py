"""Files on their way from an address into the store: each in parts that resume, held against all that is known of its
contents, and let in only if nothing there changed meanwhile."""

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
"""Where in the store they lie while they are not whole."""


@dataclass(frozen=True, kw_only=True)
class Object:
    """A file at an address: its `mark`, which is another if its contents are, and their hexadecimal `md5`, where that
    is told."""

    size: int
    mark: str
    md5: str | None = None


class Reader(Protocol):
    """Brings what lies at an address. Every method but `wait` and `told` raises what it may: `told` puts it in our
    words, and `wait` tells the seconds until another try, or None if that would do no better."""

    def list(self) -> dict[str, Object]:
        """Every file, by its path below the address, as it is now."""

    def start(self, path: str, count: int) -> bytes:
        """The first bytes of a file."""

    def puller(self, path: str, size: int) -> Callable[[Partial], None]:
        """What brings the bytes of a file that are missing."""

    def holds(self, path: str, thing: Object, file: Path) -> bool | None:
        """Whether a file's contents are those there; None if that is not told."""

    def wait(self, error: Exception) -> float | None: ...

    def told(self, error: Exception) -> MarError: ...


def changed(where: str) -> StageError:
    return StageError(
        f"{where} changed while it was read.",
        "Somebody wrote to it, a training run perhaps.",
        "Build again when that is finished.",
    )


def _of_the_disk(error: Exception) -> bool:
    return isinstance(error, OSError) and str(error.filename).startswith("/")


@contextmanager
def errors(reader: Reader) -> Iterator[None]:
    """What a reader raises, in our words; what the disk does stays as it is."""
    try:
        yield
    except MarError:
        raise
    except Exception as error:
        if _of_the_disk(error):
            raise
        raise reader.told(error) from None


class Transfer:
    """Of files of `where`, which is as `there` says, into a store."""

    def __init__(self, store: Store, where: str, reader: Reader, there: Mapping[str, Object]) -> None:
        self.store, self.where, self.reader, self.there = store, where, reader, there

    def bring(self, paths: Collection[str], locked: Mapping[str, File], progress: Progress) -> dict[str, Entry]:
        """Fetch files, which are whole in their parts then; their entries by path. One that is `locked` has the locked
        contents, or those that are there for certain. Raises StageError, InputError."""
        self._refuse_too_little_room(paths)
        total, done = sum(self.there[path].size for path in paths), 0

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
                found = dict(each(sorted(paths, key=lambda path: -self.there[path].size), one))
            self._refuse_changed(paths)
        return found

    def let_in(self, found: Mapping[str, Entry]) -> None:
        """Make what was brought the store's."""
        for path, entry in found.items():
            self.store.adopt(self._part(path), entry)
            self.store.digests.know(self.store.blob(entry.sha256), entry)

    def _part(self, path: str) -> Path:
        return self.store.root / FOLDER / f"{text_digest(f'{self.where}/{path} {self.there[path].mark}')}.incomplete"

    def _refuse_too_little_room(self, paths: Collection[str]) -> None:
        size = sum(partial.missing(self._part(path), self.there[path].size) for path in paths)
        partial.refuse_too_little_room(self.store.root, size, self.where)

    def _whole(self, path: str, locked: File | None, tick: Tick) -> Entry:
        """The entry of a file, which is all there afterwards, in its part."""
        thing, part = self.there[path], self._part(path)
        seen: list[str] = []

        def right(entry: Entry) -> bool:
            if locked is not None and entry.sha256 == locked.sha256:
                return True
            verdict = self.reader.holds(path, thing, part)
            if verdict is None and locked is not None:
                # If the same bytes come twice, they are what is there.
                verdict = entry.sha256 in seen
                seen.append(entry.sha256)
            return verdict is not False

        pull, what = self.reader.puller(path, thing.size), f"{path} of {self.where}"
        with Partial(part, tick, thing.size) as into:
            partial.complete(into, thing.size, pull, right, self.reader.wait, what, "Try another network.")
            return into.entry(path)

    def _refuse_changed(self, paths: Collection[str]) -> None:
        """Raises StageError if files are not those any more that were there."""
        now = self.reader.list()
        if any(now.get(path) != self.there[path] for path in paths):
            raise changed(self.where)

    @contextmanager
    def _changes(self, paths: Collection[str]) -> Iterator[None]:
        """That files changed, where an error came of that."""
        try:
            yield
        except Exception as error:
            if self.reader.wait(error) is None and not _of_the_disk(error):
                with suppress(Exception):  # then the first error tells more
                    now = self.reader.list()
                    if any(now.get(path) != self.there[path] for path in paths):
                        error = changed(self.where)
            raise error from None
