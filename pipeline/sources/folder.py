"""A folder on this machine: its files are read where they lie, and never copied."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from .. import card
from ..errors import InputError
from ..selection import card as card_of
from ..source import Fetched, NotReadYet, Progress
from ..store import Store, key_of

DEEPEST = 3
"""Folders below which nothing of a checkpoint lies."""


class Folder:
    """A checkpoint's folder, or a starter's."""

    def __init__(self, store: Store, path: Path, where: str, provenance: Mapping[str, Any]) -> None:
        self.store, self.path, self.where = store, path, where
        self.may_fetch = False
        self._provenance = dict(provenance)
        self._sizes: dict[str, int] | None = None

    def sizes(self) -> Mapping[str, int]:
        if self._sizes is None:
            self._sizes = {file.relative_to(self.path).as_posix(): size for file, size in _walk(self.path, DEEPEST)}
        return self._sizes

    def text(self, path: str) -> str:
        try:
            return (self.path / path).read_text(encoding="utf-8")
        except ValueError:
            raise InputError(f"{self.path / path} is no text.", fix="Restore it, or save the model again.") from None

    def license(self) -> str | None:
        if self._provenance["kind"] == "starter":
            return "Apache-2.0"  # as this package
        about = card_of(self.sizes())
        return card.license_in((self.path / about).read_text(encoding="utf-8", errors="replace")) if about else None

    def identity(self, files: Mapping[str, str]) -> dict[str, Any]:
        digests = {}
        for name, path in files.items():
            known = self.store.known(self.path / path)
            if known is None:
                raise NotReadYet(f"{path} is new, or changed since it was last read")
            digests[name] = known.sha256
        return {"files": digests}

    def provenance(self) -> dict[str, Any]:
        return dict(self._provenance)

    def fetch(self, files: Mapping[str, str], progress: Progress) -> list[Fetched]:
        total, done = sum(self.sizes()[path] for path in files.values()), 0

        def tick(count: int) -> None:
            nonlocal done
            done += count
            progress(f"reading {self.where}", done, total)

        # Builds that begin together read it once.
        with self.store.lock(key_of({"read": str(self.path)})):
            home = self.path.resolve()
            return [
                Fetched(entry=replace(self.store.read(self.path / path, path, tick), path=name), place=str(home / path))
                for name, path in files.items()
            ]


def _walk(folder: Path, depth: int) -> Iterator[tuple[Path, int]]:
    with os.scandir(folder) as items:
        for item in items:
            with suppress(OSError):  # links in a circle, folders that are closed to us: no part of a checkpoint
                if item.is_file():
                    yield Path(item.path), item.stat().st_size
                elif depth > 1 and item.is_dir() and not item.name.startswith("."):
                    yield from _walk(Path(item.path), depth - 1)
