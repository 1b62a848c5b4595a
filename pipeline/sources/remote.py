"""A folder at an address, such as one in an object store. Its files are downloaded into the store, as blobs.

The store remembers the address's last listing, and the digest of each downloaded file by its mark (an ETag). So no file
is downloaded twice, and a known model is built again without the network. With a lock, its digests replace the marks,
and no request is needed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any

from ..cache.store import Store, key_of
from ..errors import InputError
from ..files.tree import Entry, canonical, text_digest
from ..model import card, lock
from ..model.selection import card as card_of
from .source import LARGEST_TEXT, Fetched, NotReadYet, Progress
from .transfer.transfer import Object, Reader, Transfer, changed, errors


class Url:
    """A checkpoint at the address `where`, read by a `reader`. (A `Source`.)"""

    def __init__(
        self,
        store: Store,
        where: str,
        reader: Reader,
        provenance: Mapping[str, Any],
        *,
        no_network: bool,
        locked: lock.Locked | None,
    ) -> None:
        self.store, self.where, self.reader, self.no_network, self.locked = store, where, reader, no_network, locked
        self.may_fetch = False
        self._provenance = dict(provenance)
        self._files: dict[str, Object] | None = None
        self._asked = False

    # What is there

    def sizes(self) -> Mapping[str, int]:
        return {path: thing.size for path, thing in self._listing().items()}

    def _listing(self) -> dict[str, Object]:
        """The files at the address: with a lock those of the last build from it, offline those of the last listing."""
        if self._files is None:
            names = [*([self._under_lock] if self.locked else []), *([self._last] if self.no_network else [])]
            kept = next((text for name in names if (text := self.store.recall(name)) is not None), None)
            if kept is not None:
                self._files = {path: Object(**fields) for path, fields in json.loads(kept).items()}
            elif self.no_network:
                raise self._not_cached()
            else:
                self._ask()
        assert self._files is not None
        return self._files

    @property
    def _last(self) -> str:
        return f"address:{self.where}"

    @property
    def _under_lock(self) -> str:
        assert self.locked is not None
        files = {path: file.sha256 for path, file in self.locked.files.items()}
        return f"{self._last} locked:{text_digest(canonical(files))}"

    def _ask(self) -> dict[str, Object]:
        """The files at the address now; requested once."""
        if not self._asked:
            with errors(self.reader):
                self._files = self.reader.list()
            self._asked = True
        assert self._files is not None
        return self._files

    def _keep_listing(self) -> None:
        """Remember the listing for offline builds, once all its needed files are in the store."""
        text = canonical({path: asdict(thing) for path, thing in self._listing().items()})
        with suppress(OSError):  # a read-only cache may still have all the needed files
            for name in [self._last, *([self._under_lock] if self.locked else [])]:
                self.store.remember(name, text)

    def _not_cached(self) -> InputError:
        return InputError(
            f"{self.where} is not in the cache, and --offline forbids the network.", fix="Build once without --offline."
        )

    def identity(self, files: Mapping[str, str]) -> dict[str, Any]:
        known = self.locked.files if self.locked is not None else {}
        pins = {name: known[name].sha256 if name in known else self._listing()[files[name]].mark for name in files}
        if self._asked and all(self._in_store(path, known.get(name)) for name, path in files.items()):
            self._keep_listing()
        return {"files": pins} if files.keys() <= known.keys() else {"url": self.where, "files": pins}

    def provenance(self) -> dict[str, Any]:
        return dict(self._provenance)

    def license(self) -> str | None:
        if self.locked is not None:
            return self.locked.license
        about = card_of(self._listing())
        if about is None:
            return None
        kept = self.store.recall(self._fact("license", about))
        if kept is None and not self.no_network:
            size = self._ask()[about].size if about in self._ask() else 0
            with errors(self.reader):
                head = self.reader.start(about, min(size, card.HEAD)) if size else b""
            kept = json.dumps(card.license_in(head.decode("utf-8", "replace")))
            if size:
                self.store.remember(self._fact("license", about), kept)
        name = json.loads(kept or "null")
        return None if name is None else str(name)

    # Its files

    def text(self, path: str) -> str:
        kept = self.store.recall(self._fact("text", path))
        if kept is None:
            if not self.may_fetch:
                raise NotReadYet(f"{path} of {self.where} is not downloaded yet")
            if self.store.read_only and not self.no_network:
                return self._read(path)
            entry = self._entries({path: path}, {}, lambda *_: None)[path]
            try:
                kept = self.store.blob(entry.sha256).read_text(encoding="utf-8")
            except ValueError:
                raise self._not_text(path) from None
            # Not earlier: the download may have renewed the listing, and with it the file's mark.
            self.store.remember(self._fact("text", path), kept)
        return kept

    def _read(self, path: str) -> str:
        """A small file's text, which is not cached."""
        size = self._ask()[path].size if path in self._ask() else -1
        with errors(self.reader):
            data = self.reader.start(path, size) if 0 <= size <= LARGEST_TEXT else b"\xff"
        try:
            return data.decode("utf-8")
        except ValueError:
            raise self._not_text(path) from None

    def _not_text(self, path: str) -> InputError:
        return InputError(f"{self.where}/{path} is not a text file.", fix="Restore it, or save the model again.")

    def fetch(self, files: Mapping[str, str], progress: Progress) -> list[Fetched]:
        known = self.locked.files if self.locked is not None else {}
        entries = self._entries(files, known, progress)
        drift = lock.changes(known, {name: lock.File(sha256=e.sha256, size=e.size) for name, e in entries.items()})
        if drift and self.locked is not None:
            raise lock.refusal(self.where, self.locked.path, drift)
        if self._asked:
            self._keep_listing()
        return [Fetched(entry=replace(entry, path=name), place=None) for name, entry in sorted(entries.items())]

    def _fact(self, kind: str, path: str) -> str:
        return f"{kind}:{self.where}/{path} {self._listing()[path].mark}"

    def _in_store(self, path: str, locked: lock.File | None) -> Entry | None:
        """The entry of a file whose contents, the locked ones or those of its mark, are in the store; else None."""
        if locked is not None:
            if self.store.locate(Entry(path, locked.sha256, locked.size, 0), {}) is None:
                return None
            read = self.store.digests.read(self.store.blob(locked.sha256), path)
            return read if read.sha256 == locked.sha256 else None
        kept = self.store.recall(self._fact("file", path))
        entry = Entry(**json.loads(kept)) if kept is not None else None
        return entry if entry is not None and self.store.locate(entry, {}) is not None else None

    def _entries(
        self, files: Mapping[str, str], known: Mapping[str, lock.File], progress: Progress
    ) -> dict[str, Entry]:
        """The entries of files by name; files that are not in the store are downloaded."""

        def cached() -> dict[str, Entry | None]:
            return {name: self._in_store(path, known.get(name)) for name, path in files.items()}

        entries: dict[str, Entry | None] = cached()
        if None in entries.values():
            if self.no_network:
                raise self._not_cached()
            # Concurrent builds download a model once.
            with self.store.lock(key_of({"fetch": self.where})):
                entries = cached()
                absent = {name: path for name, path in files.items() if entries[name] is None}
                self._refuse_drift(absent, known)
                locked = {path: known[name] for name, path in absent.items() if name in known}
                transfer = Transfer(self.store, self.where, self.reader, self._ask())
                downloaded = transfer.fetch(set(absent.values()), locked, progress)
                # Before the files are adopted: a blob without this fact would be downloaded again.
                for path, new in downloaded.items():
                    self.store.remember(self._fact("file", path), canonical(asdict(new)))
                transfer.adopt(downloaded)
                entries |= {name: downloaded[path] for name, path in absent.items()}
        return {name: one for name, one in entries.items() if one is not None}

    def _refuse_drift(self, files: Mapping[str, str], known: Mapping[str, lock.File]) -> None:
        """Raise InputError if the files at the address cannot be the locked ones, StageError if one is missing."""
        objects = self._ask()
        drift = [f"{name} is missing" for name, path in files.items() if path not in objects]
        drift += [
            f"{name} has {objects[path].size:,} bytes, but had {known[name].size:,}"
            for name, path in files.items()
            if path in objects and name in known and known[name].size != objects[path].size
        ]
        if drift:
            raise changed(self.where) if self.locked is None else lock.refusal(self.where, self.locked.path, drift)
