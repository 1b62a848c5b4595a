"""Two answers compared. Verify and smoke judge by this module alone whether an archive answers right."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .. import text

_ROWS = 12
"""Differences that a table shows."""

_WIDTH = 48
"""Characters of a value that it shows."""


class _Absent:
    pass


ABSENT = _Absent()


@dataclass(frozen=True)
class Difference:
    """Where two answers differ, and how; a value is `ABSENT` where only the other answer has one."""

    where: str
    wanted: Any
    got: Any


def differences(where: str, wanted: Any, got: Any, tolerance: float) -> list[Difference]:
    """Every place where `got` does not agree with `wanted`, two answers as JSON has them; `where` says whose.

    - A number with a fraction in `wanted` is a score: `got` has a number that differs by at most `tolerance`, or the
      same infinity. NaN agrees with nothing, not even with NaN: a score that is not a number is wrong on both sides.
    - Anything else is equal and of the same type. A whole number is a place or a count, which 3.0 is not. true and
      false are not numbers.
    - Two objects have the same fields, in any order, and two lists the same length.
    """
    return [
        Difference(f"{where} {path}".strip(), one, other)
        for path, one, other in _pairs("", wanted, got)
        if not _agree(one, other, tolerance)
    ]


def largest(wanted: Any, got: Any) -> float:
    """The largest difference between two scores of answers that agree."""
    return max(
        (abs(one - other) for _, one, other in _pairs("", wanted, got) if isinstance(one, float) and one != other),
        default=0.0,
    )


def table(found: Sequence[Difference], wanted: str, got: str) -> str:
    """The first few differences as lines of text, below the names of the two that answered."""
    rows = [(each.where, _shown(each.wanted), _shown(each.got)) for each in found]
    return text.table(("where", wanted, got), rows, _ROWS)


def _pairs(path: str, wanted: Any, got: Any) -> Iterator[tuple[str, Any, Any]]:
    """Each value of two answers that is neither a list nor an object in both, and where it is."""
    if isinstance(wanted, dict) and isinstance(got, dict):
        for name in {**wanted, **got}:
            yield from _pairs(f"{path}.{name}", wanted.get(name, ABSENT), got.get(name, ABSENT))
    elif isinstance(wanted, list) and isinstance(got, list):
        for index in range(max(len(wanted), len(got))):
            one, other = (values[index] if index < len(values) else ABSENT for values in (wanted, got))
            yield from _pairs(f"{path}[{index}]", one, other)
    else:
        yield path, wanted, got


def _agree(wanted: Any, got: Any, tolerance: float) -> bool:
    if isinstance(wanted, float) and type(got) in (int, float):
        return bool(wanted == got or abs(wanted - got) <= tolerance)
    return type(wanted) is type(got) and bool(wanted == got)


def _shown(value: Any) -> str:
    shown = "(none)" if value is ABSENT else json.dumps(value, ensure_ascii=False)
    return shown if len(shown) <= _WIDTH else f"{shown[: _WIDTH - 3]}..."
