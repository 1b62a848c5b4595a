"""Compares two mappings key by key."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

DEEPEST = 12
"""Levels of nested mappings that are compared by key; deeper ones are compared as a whole."""


def of(one: Mapping[str, Any], other: Mapping[str, Any], at: tuple[str, ...] = ()) -> dict[tuple[str, ...], str]:
    """How each changed key changed, by its path from the top."""
    changes: dict[tuple[str, ...], str] = {}
    for key in dict.fromkeys((*one, *other)):
        where = (*at, str(key))
        if key not in other:
            changes[where] = f"is only in A ({shown(one[key])})"
        elif key not in one:
            changes[where] = f"is only in B ({shown(other[key])})"
        elif len(at) < DEEPEST and isinstance(one[key], dict) and isinstance(other[key], dict):
            changes |= of(one[key], other[key], where)
        # The types too: 1, 1.0 and True are equal in Python.
        elif one[key] != other[key] or type(one[key]) is not type(other[key]):
            changes[where] = f"{shown(one[key])} -> {shown(other[key])}"
    return changes


def shown(value: Any) -> str:
    """A value on one line of at most 60 characters: a single word without quotes, a digest by its first six digits."""
    if isinstance(value, str) and len(value) == 64 and all(letter in "0123456789abcdef" for letter in value):
        return f"{value[:6]}.."
    if isinstance(value, str) and value and len(value) <= 60 and " " not in value:
        return value
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."
