"""The problems of one config, each with the command-line option or the line that caused it."""

from __future__ import annotations

from pathlib import Path

from ..files.yaml import Where
from ..model.address import without_secrets
from ..text import printable
from .messages import dotted


class Problems:
    """The problems of the config in the file `path`. `lines` maps each key to its line, and `options` a key that the
    command line set to the option."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: dict[Where, int] = {}
        self.options: dict[Where, str] = {}
        self._entries: list[tuple[int, str]] = []

    def __bool__(self) -> bool:
        return bool(self._entries)

    def shown(self) -> list[str]:
        """A line for each problem: those of the command line, then those of the file, from its top."""
        texts = [text for _, text in sorted(self._entries, key=lambda item: item[0])]
        # Often the problem is an invisible character: `printable` writes it out.
        return [printable(without_secrets(text)) for text in texts]

    def add(self, where: Where, message: str) -> None:
        """Note a problem at the option or the line that set the value at `where`."""
        for length in range(len(where), -1, -1):
            option = self.options.get(where[:length])
            if option is not None:
                inside = f"{dotted(where)}: " if length < len(where) else ""
                self.add_general(f"{option}: {inside}{message}")
                return
            if where[:length] in self.lines:
                self.at_line(self.lines[where[:length]], where, message)
                return
        self.at_line(1, where, message)

    def at_line(self, line: int, where: Where, message: str) -> None:
        """Note a problem of the key `where` at a line of the file."""
        key, line = dotted(where), max(line, 1)
        self._entries.append((line, f"{self.path}:{line}: {key}{': ' if key else ''}{message}"))

    def add_general(self, message: str) -> None:
        """Note a problem of the command line, or of the whole file."""
        self._entries.append((0, message))
