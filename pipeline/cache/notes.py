"""A cache's notes: small JSON files that speed up a build, which works without them too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..files import atomic
from .folder import leads_out


class Notes:
    """The notes of the cache at `root`. With `read_only`, they are written to memory only."""

    def __init__(self, root: Path, warn: Callable[[str], None], *, read_only: bool = False) -> None:
        self.root, self.read_only = root, read_only
        self._warn = warn
        self._memory: dict[Path, Any] = {}

    def read(self, path: Path, what: str) -> Any:
        """A note's value; None if it is missing or damaged. `what` describes it in the warning of damage."""
        if path in self._memory:
            return self._memory[path]
        try:
            return atomic.read(path)
        except atomic.DamagedNote:
            self._warn(f"The cache is damaged: {what}. It is rebuilt.")
        except OSError:
            pass
        return None

    def write(self, path: Path, value: Any) -> None:
        """Store a JSON value, if the cache is writable."""
        if self.read_only:
            self._memory[path] = value
            return
        with atomic.if_writable():
            atomic.write(path, value)

    def remove(self, path: Path) -> None:
        """Remove a note, if the cache is writable; nothing is removed through a link."""
        self._memory.pop(path, None)
        if not self.read_only and not leads_out(self.root, path):
            with atomic.if_writable():
                path.unlink(missing_ok=True)
