"""The problems of one config, each with the option or the line that it comes from."""

from __future__ import annotations

from pathlib import Path

from ..files.yaml import Where
from ..model.address import without_secrets
from ..text import printable
from .messages import dotted


class Problems:
    """What is wrong with the config in the file `path`. `lines` are those of its keys, and `options` what the command
    line said of a key instead."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: dict[Where, int] = {}
        self.options: dict[Where, str] = {}
        self._found: list[tuple[int, str]] = []

    def __bool__(self) -> bool:
        return bool(self._found)

    def shown(self) -> list[str]:
        """A line for each problem: those of the command line, then those of the file, from its top."""
        # A letter that nobody sees is what is wrong, often enough.
        texts = [text for _, text in sorted(self._found, key=lambda item: item[0])]
        return [printable(without_secrets(text)) for text in texts]

    def add(self, where: Where, message: str) -> None:
        """Note a problem at the option, or at the line, that the value at `where` came from."""
        for length in range(len(where), -1, -1):
            option = self.options.get(where[:length])
            if option is not None:
                inside = f"{dotted(where)}: " if length < len(where) else ""
                self.say(f"{option}: {inside}{message}")
                return
            if where[:length] in self.lines:
                self.at_line(self.lines[where[:length]], where, message)
                return
        self.at_line(1, where, message)

    def at_line(self, line: int, where: Where, message: str) -> None:
        """Note a problem of the key `where` in a line of the file."""
        key, line = dotted(where), max(line, 1)
        self._found.append((line, f"{self.path}:{line}: {key}{': ' if key else ''}{message}"))

    def say(self, message: str) -> None:
        """Note a problem of the command line, or of the whole file."""
        self._found.append((0, message))
