"""Text for people: sizes and times, shortened lists, tables, did-you-mean, escaped control characters."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any

_UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""What a terminal may act on instead of showing it: control characters except tab and line feed, line and paragraph
separators, and what changes the direction of writing (https://trojansource.codes). And surrogates, which UTF-8 cannot
encode."""


def printable(text: str) -> str:
    """The text on one line, with every non-printable character escaped: names in an archive may hold any."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def visible(text: str) -> str:
    """The text with what a terminal may act on escaped, as \\u001b. JSON has the same escapes, so JSON text keeps its
    value."""
    return _UNSEEN.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def one_line(text: str) -> str:
    """`visible`, with line breaks escaped too."""
    return visible(text).replace("\n", "\\n")


def shown(value: Any) -> str:
    """A value as the user would write it, on one line of at most 50 characters."""
    if isinstance(value, dict):
        return "a section"
    if isinstance(value, list):
        return "a list"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 50 else text[:47] + "..."


def some(names: list[str], most: int = 3) -> str:
    """The first `most` names, and the number of the others."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def size(count: int) -> str:
    """A number of bytes in B, kB, MB, GB or TB (powers of 1000)."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def seconds(value: float) -> str:
    """A duration in seconds, with one decimal; "-" below 0.05."""
    return f"{value:.1f} s" if value >= 0.05 else "-"


def near(word: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The known word closest to a misspelt one, ignoring case; None if none is close. `cutoff` is difflib's."""
    by_lower = {name.lower(): name for name in known}
    matches = get_close_matches(word.lower(), by_lower, n=1, cutoff=cutoff)
    return by_lower[matches[0]] if matches else None


def table(title: Sequence[str], rows: Sequence[Sequence[str]], most: int | None = None) -> str:
    """A table as text, with a header; after the first `most` rows, the number of the others. Line breaks in a cell are
    escaped."""
    every = [[one_line(cell) for cell in row] for row in (title, *rows[:most])]
    widths = [max(len(row[column]) for row in every) for column in range(len(title))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in every]
    more = len(rows) - len(every) + 1
    return "\n".join([*lines, *([f"and {more} more"] if more else [])])
