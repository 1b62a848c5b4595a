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
