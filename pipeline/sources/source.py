"""What a source of checkpoints is: a Hub repository at a commit, a folder, an object store, a registry."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from ..files.tree import Entry

Progress = Callable[[str, int, int | None], None]
"""Told what is being done, how much of it is done, and how much there is (bytes, or None where unknown)."""


LARGEST_TEXT = 64 << 20
"""Bytes of a text that is read into memory, where nothing is to be kept."""


class NotReadYet(Exception):
    """What is asked cannot be told without reading or fetching something; the message is the reason."""


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """A file of a source: its entry under its path in the checkpoint, and where it lies outside the store; None if it
    lies in the store, as a blob."""

    entry: Entry
    place: str | None


class Source(Protocol):
    """Paths are those of the source, with `/`. Until `may_fetch` is set nothing is fetched or read that is not small:
    then NotReadYet is raised. Raises InputError for what cannot be used, StageError where a transfer fails."""

    where: str
    """The source in an error's words."""
    may_fetch: bool

    def sizes(self) -> Mapping[str, int]:
        """Bytes of every file."""

    def text(self, path: str) -> str:
        """A small file."""

    def license(self) -> str | None:
        """What the model card says of it."""

    def identity(self, files: Mapping[str, str]) -> dict[str, Any]:
        """What these files (path in the checkpoint -> path here) are made sure of by: a commit, or digests."""

    def provenance(self) -> dict[str, Any]:
        """Where it came from, as provenance.json tells it: `kind` and what that kind has."""

    def fetch(self, files: Mapping[str, str], progress: Progress) -> list[Fetched]:
        """The files' contents and digests."""
