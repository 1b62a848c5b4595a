"""A folder at an address, such as one in an object store: its files come into the store, as blobs.

What the address held when it was last asked is kept as a fact, and so is the digest of what was fetched under each mark
that it has for a file's contents. So nothing is fetched twice, and what was seen once is built again without the
network. A lock's digests take the marks' place: then nobody needs to ask.
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

_HEAD = 1 << 16
"""Bytes of a model card that are read for its head."""


class Url:
    """A checkpoint at the address `where`, that a `reader` reads."""

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
        """What is there: with a lock what was there when it was built from last, offline when it was asked last."""
        if self._files is None:
            names = [*([self._under_lock] if self.locked else []), *([self._last] if self.no_network else [])]
            kept = next((told for name in names if (told := self.store.recall(name)) is not None), None)
            if kept is not None:
                self._files = {path: Object(**told) for path, told in json.loads(kept).items()}
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
        """What is there now, which is asked once."""
        if not self._asked:
            with errors(self.reader):
                self._files = self.reader.list()
            self._asked = True
        assert self._files is not None
        return self._files

    def _keep_listing(self) -> None:
        """Note what is there, once all that is needed of it is here: offline it is what was there last."""
        told = canonical({path: asdict(thing) for path, thing in self._listing().items()})
        with suppress(OSError):  # a cache that is read-only may still have all that is needed
            for name in [self._last, *([self._under_lock] if self.locked else [])]:
                self.store.remember(name, told)

    def _not_cached(self) -> InputError:
        return InputError(
            f"{self.where} is not in the cache, and the network is not to be used.", fix="Build once without --offline."
        )

    def identity(self, files: Mapping[str, str]) -> dict[str, Any]:
        known = self.locked.files if self.locked is not None else {}
        told = {name: known[name].sha256 if name in known else self._listing()[files[name]].mark for name in files}
        if self._asked and all(self._in_store(path, known.get(name)) for name, path in files.items()):
            self._keep_listing()
        return {"files": told} if files.keys() <= known.keys() else {"url": self.where, "files": told}

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
                head = self.reader.start(about, min(size, _HEAD)) if size else b""
            kept = json.dumps(card.license_in(head.decode("utf-8", "replace")))
            if size:
                self.store.remember(self._fact("license", about), kept)
        found = json.loads(kept or "null")
        return None if found is None else str(found)

    # Its files

    def text(self, path: str) -> str:
        kept = self.store.recall(self._fact("text", path))
        if kept is None:
            if not self.may_fetch:
                raise NotReadYet(f"{path} of {self.where} was not fetched yet")
            if self.store.read_only and not self.no_network:
                return self._read(path)
            entry = self._brought({path: path}, {}, lambda *_: None)[path]
            try:
                kept = self.store.blob(entry.sha256).read_text(encoding="utf-8")
            except ValueError:
                raise self._no_text(path) from None
            # Not before: what is there may have been asked for again.
            self.store.remember(self._fact("text", path), kept)
        return kept

    def _read(self, path: str) -> str:
        """A text that is there now, which is not kept."""
        size = self._ask()[path].size if path in self._ask() else -1
        with errors(self.reader):
            data = self.reader.start(path, size) if 0 <= size <= LARGEST_TEXT else b"\xff"
        try:
            return data.decode("utf-8")
        except ValueError:
            raise self._no_text(path) from None

    def _no_text(self, path: str) -> InputError:
        return InputError(f"{self.where}/{path} is no text.", fix="Restore it, or save the model again.")

    def fetch(self, files: Mapping[str, str], progress: Progress) -> list[Fetched]:
        known = self.locked.files if self.locked is not None else {}
        found = self._brought(files, known, progress)
        drift = lock.changes(known, {name: lock.File(sha256=e.sha256, size=e.size) for name, e in found.items()})
        if drift and self.locked is not None:
            raise lock.refusal(self.where, self.locked.path, drift)
        if self._asked:
            self._keep_listing()
        return [Fetched(entry=replace(entry, path=name), place=None) for name, entry in sorted(found.items())]

    def _fact(self, kind: str, path: str) -> str:
        return f"{kind}:{self.where}/{path} {self._listing()[path].mark}"

    def _in_store(self, path: str, locked: lock.File | None) -> Entry | None:
        """The entry of a file whose contents, the locked ones or those of its mark, are here."""
        if locked is not None:
            if self.store.locate(Entry(path, locked.sha256, locked.size, 0), {}) is None:
                return None
            read = self.store.digests.read(self.store.blob(locked.sha256), path)
            return read if read.sha256 == locked.sha256 else None
        kept = self.store.recall(self._fact("file", path))
        entry = Entry(**json.loads(kept)) if kept is not None else None
        return entry if entry is not None and self.store.locate(entry, {}) is not None else None

    def _brought(
        self, files: Mapping[str, str], known: Mapping[str, lock.File], progress: Progress
    ) -> dict[str, Entry]:
        """The entries of files by name; what is not here is fetched."""

        def here() -> dict[str, Entry | None]:
            return {name: self._in_store(path, known.get(name)) for name, path in files.items()}

        found: dict[str, Entry | None] = here()
        if None in found.values():
            if self.no_network:
                raise self._not_cached()
            # Builds that begin together fetch it once.
            with self.store.lock(key_of({"fetch": self.where})):
                found = here()
                absent = {name: path for name, path in files.items() if found[name] is None}
                self._refuse_drift(absent, known)
                locked = {path: known[name] for name, path in absent.items() if name in known}
                transfer = Transfer(self.store, self.where, self.reader, self._ask())
                brought = transfer.bring(set(absent.values()), locked, progress)
                # First of all: what is let in, and not known by its mark, would be fetched again.
                for path, new in brought.items():
                    self.store.remember(self._fact("file", path), canonical(asdict(new)))
                transfer.let_in(brought)
                found |= {name: brought[path] for name, path in absent.items()}
        return {name: one for name, one in found.items() if one is not None}

    def _refuse_drift(self, files: Mapping[str, str], known: Mapping[str, lock.File]) -> None:
        """Raises InputError if what is there now cannot be what is locked, StageError if a file is gone."""
        there = self._ask()
        drift = [f"{name} is gone" for name, path in files.items() if path not in there]
        drift += [
            f"{name} has {there[path].size:,} bytes, and had {known[name].size:,}"
            for name, path in files.items()
            if path in there and name in known and known[name].size != there[path].size
        ]
        if drift:
            raise changed(self.where) if self.locked is None else lock.refusal(self.where, self.locked.path, drift)
