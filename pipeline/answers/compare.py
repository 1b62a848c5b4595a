"""Two answers compared: words and numbers of things equal, scores within a tolerance."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Difference:
    """Where two answers differ, and how; a value is `ABSENT` where only the other has one."""

    where: str
    wanted: Any
    got: Any

    @staticmethod
    def show(value: Any) -> str:
        text = "(none)" if value is ABSENT else json.dumps(value, ensure_ascii=False)
        return text if len(text) <= 48 else text[:45] + "..."


class _Absent:
    pass


ABSENT = _Absent()


def differences(where: str, wanted: Any, got: Any, tolerance: float) -> list[Difference]:
    """Every place where `got` is not `wanted`. Of a mapping only the fields that `wanted` has are compared."""
    if isinstance(wanted, dict) and isinstance(got, dict):
        return [
            difference
            for name, value in wanted.items()
            for difference in differences(f"{where}.{name}", value, got.get(name, ABSENT), tolerance)
        ]
    if isinstance(wanted, list) and isinstance(got, list):
        longest = max(len(wanted), len(got))
        both = [(_at(wanted, index), _at(got, index)) for index in range(longest)]
        return [d for index, (w, g) in enumerate(both) for d in differences(f"{where}[{index}]", w, g, tolerance)]
    if isinstance(wanted, float) and isinstance(got, int | float) and not isinstance(got, bool):
        return [] if abs(wanted - got) <= tolerance else [Difference(where, wanted, float(got))]
    return [] if type(wanted) is type(got) and wanted == got else [Difference(where, wanted, got)]


def _at(values: list[Any], index: int) -> Any:
    return values[index] if index < len(values) else ABSENT
