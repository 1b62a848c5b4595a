"""Text for people: sizes and times, lists cut short, tables, hints at what was meant, characters made harmless."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches

UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
"""Control characters but tab and end of line, and halves of characters, which no file can hold."""


def printable(text: str) -> str:
    """A text on one line: what would steer a terminal is written out. Names in an archive may hold anything."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def visible(text: str) -> str:
    """The text with its control characters written out, as \\x1b: a terminal would obey them."""
    return UNSEEN.sub(lambda found: repr(found[0])[1:-1], text)


def some(names: list[str], most: int = 3) -> str:
    """The first few of many names, and the number of the others."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def size(count: int) -> str:
    """Bytes in a unit that reads well: powers of 1000, as file managers and disks have it."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def seconds(value: float) -> str:
    return f"{value:.1f} s" if value >= 0.05 else "-"


def near(word: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The known word that is most like a misspelt one, ignoring case; None if none is. `cutoff` is difflib's."""
    by_lower = {name.lower(): name for name in known}
    found = get_close_matches(word.lower(), by_lower, n=1, cutoff=cutoff)
    return by_lower[found[0]] if found else None


def table(title: Sequence[str], rows: Sequence[Sequence[str]], most: int | None = None) -> str:
    """Columns of text, as wide as they need to be; of the rows only the first `most`, and the number of the others."""
    every = [title, *rows[:most]]
    widths = [max(len(row[column]) for row in every) for column in range(len(title))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in every]
    more = len(rows) - len(every) + 1
    return "\n".join([*lines, *([f"and {more} more"] if more else [])])
