"""Compares two answers. verify and smoke both use this module to decide whether answers agree."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .. import text

_ROWS = 12
"""The most differences that a table shows."""

_WIDTH = 48
"""The most characters of a value that it shows."""


class _Absent:
    pass


ABSENT = _Absent()


@dataclass(frozen=True)
class Difference:
    """A place where two answers differ, and both values. A value that only the other answer has is `ABSENT`."""

    where: str
    wanted: Any
    got: Any


def differences(where: str, wanted: Any, got: Any, tolerance: float) -> list[Difference]:
    """Every place where the JSON value `got` does not agree with `wanted`. `where` begins each difference's place.

    - A float in `wanted` is a score: `got` must be a number that differs by at most `tolerance`, or the same infinity.
      NaN agrees with nothing, not even with NaN: a score of NaN is wrong on both sides.
    - Anything else must be equal and of the same type: an integer is an index or a count, so 3.0 is not 3, and true is
      not 1.
    - Two objects must have the same fields, in any order, and two lists the same length.
    """
    return [
        Difference(f"{where} {path}".strip(), one, other)
        for path, one, other in _pairs("", wanted, got)
        if not _agree(one, other, tolerance)
    ]


def largest(wanted: Any, got: Any) -> float:
    """The largest difference between the scores of two answers that agree; 0.0 without scores."""
    return max(
        (abs(one - other) for _, one, other in _pairs("", wanted, got) if isinstance(one, float) and one != other),
        default=0.0,
    )


def table(differences: Sequence[Difference], wanted: str, got: str) -> str:
    """The first differences as a table; `wanted` and `got` are the headings of the two columns of values."""
    rows = [(each.where, _shown(each.wanted), _shown(each.got)) for each in differences]
    return text.table(("where", wanted, got), rows, _ROWS)


def _pairs(path: str, wanted: Any, got: Any) -> Iterator[tuple[str, Any, Any]]:
    """Path and values of each pair of values of two answers, except where both are lists or both are objects."""
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
