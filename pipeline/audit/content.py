"""What of a file is examined: its name, size, first and last bytes, and all of it where it is small."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import IO

from ..archive.findings import Level
from .pickles import Pickled

HELD = 64 << 20
"""The most bytes of a file that are in memory at once."""
TAIL = 1 << 17
"""The last bytes of a file that are looked at: the end record of a zip file is in the last 65,577 (APPNOTE.TXT
4.3.16)."""


@dataclass(frozen=True)
class Content:
    """A file to examine. `start` has its first bytes (pickles.WINDOW at least, or all), `end` its last (TAIL or all),
    `whole` all of them, None if they are more than HELD or were not kept. `open` gives them as a seekable stream."""

    path: str
    size: int
    start: bytes
    end: bytes
    whole: bytes | None
    open: Callable[[], AbstractContextManager[IO[bytes]]]

    @property
    def name(self) -> str:
        """The last part of its path, in lower case."""
        return self.path.rpartition("/")[2].lower()

    @property
    def suffix(self) -> str:
        """The suffix of its name with the dot, in lower case; "" if it has none."""
        stem, dot, last = self.name.rpartition(".")
        return dot + last if stem else ""


@dataclass(frozen=True)
class Problem:
    """Why a file is not known to be harmless: `what` follows its name, `do` is what to do. `pickled` is the pickle that
    was found, `level` that of the finding."""

    what: str
    do: str
    pickled: Pickled | None = None
    level: Level = "error"
