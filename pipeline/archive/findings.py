"""A finding of `mar check`: its level, the file that it concerns, why it matters, and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Level = Literal["error", "warning", "note"]

SHOWN = 10
"""Findings of one kind that are listed one by one."""


@dataclass(frozen=True)
class Finding:
    """`what` says in one line what is wrong and why it matters, `do` in one line what to do.

    `where` is the file that the finding concerns, "" for the archive as a whole.
    """

    level: Level
    where: str
    what: str
    do: str = ""


Findings = Iterator[Finding]
