"""What a check finds: how bad it is, what it is about, why it matters, and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Level = Literal["error", "warning", "note"]

SHOWN = 10
"""Findings of one kind that are told one by one."""


@dataclass(frozen=True)
class Finding:
    """One line on `what` is wrong and why it matters, one on what to `do`; `where` is the file it is about, "" if it is
    the archive as a whole."""

    level: Level
    where: str
    what: str
    do: str = ""


Findings = Iterator[Finding]


def some(names: list[str], most: int = 3) -> str:
    """The first few of many names, and the number of the others."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def printable(text: str) -> str:
    """A text on one line: what would steer a terminal is written out. Names in an archive may hold anything."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)
