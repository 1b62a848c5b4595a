"""A cache's notes: JSON files that are good to have, and that a build can do without."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..files import atomic
from .folder import leads_out


class Notes:
    """The notes of the cache in the folder `root`. Those of a `read_only` one are written to memory alone."""

    def __init__(self, root: Path, warn: Callable[[str], None], *, read_only: bool = False) -> None:
        self.root, self.read_only = root, read_only
        self._warn = warn
        self._memory: dict[Path, Any] = {}

    def read(self, path: Path, what: str) -> Any:
        """A note's value; None if there is none, or a damaged one, which is warned of as `what`."""
        if path in self._memory:
            return self._memory[path]
        try:
            return atomic.read(path)
        except atomic.DamagedNote:
            self._warn(f"The cache is damaged: {what}. It is made again.")
        except OSError:
            pass
        return None

    def write(self, path: Path, value: Any) -> None:
        """Keep a JSON value, as far as the cache can be written to."""
        if self.read_only:
            self._memory[path] = value
            return
        with atomic.if_writable():
            atomic.write(path, value)

    def remove(self, path: Path) -> None:
        """Remove a note, as far as the cache can be written to; nothing is removed through a link."""
        self._memory.pop(path, None)
        if not self.read_only and not leads_out(self.root, path):
            with atomic.if_writable():
                path.unlink(missing_ok=True)
