"""The interface of a source of checkpoints: a Hub repository at a commit, a folder, an object store, a registry."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from ..errors import InputError
from ..files import pointers
from ..files.tree import Entry

Progress = Callable[[str, int, int | None], None]
"""Receives what is being done, the bytes that are done, and the total of bytes (None if unknown)."""


LARGEST_TEXT = 32 << 20
"""The most bytes of a text that is read into memory. The longest are indices of weights: 13 MB for a model of a
trillion parameters."""


class NotReadYet(Exception):
    """The answer needs a read or a download that is not allowed yet; the message is the reason."""


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """A fetched file: its entry, with its path in the checkpoint, and its path on disk (`place`); None if it is a blob
    in the store."""

    entry: Entry
    place: str | None


class Source(Protocol):
    """A checkpoint's source. Paths are relative to it, with `/`.

    Until `may_fetch` is set, only small files are read and nothing is downloaded; a method that needs more raises
    NotReadYet. All methods raise InputError for a source that cannot be used, and StageError if a transfer fails.
    `files` maps a path in the checkpoint to the path in the source.
    """

    where: str
    """The source's name in errors."""
    may_fetch: bool

    def sizes(self) -> Mapping[str, int]:
        """Every file's size in bytes, by path."""

    def text(self, path: str) -> str:
        """The text of a small file."""

    def license(self) -> str | None:
        """The licence in the model card; None if it has none."""

    def identity(self, files: Mapping[str, str]) -> dict[str, Any]:
        """What pins these files for the cache key: a commit, or their digests."""

    def provenance(self) -> dict[str, Any]:
        """The source's part of provenance.json: its `kind`, and keys of that kind."""

    def fetch(self, files: Mapping[str, str], progress: Progress) -> list[Fetched]:
        """Download or read the files; their entries have their digests."""


def read_text(source: Source, path: str) -> str:
    """The text of a small file of a source. Raises InputError for a large file, or a Git LFS pointer in its place."""
    if (size := source.sizes().get(path, 0)) > LARGEST_TEXT:
        raise InputError(
            f"{source.where}/{path} has {size:,} bytes; it may have {LARGEST_TEXT:,}.",
            "It is damaged, or another file has its name.",
            "Restore it, or save the model again.",
        )
    text = source.text(path)
    pointers.refuse(text[: pointers.LONGEST].encode(), f"{source.where}/{path}")
    return text
