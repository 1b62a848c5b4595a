"""Two mappings compared key by key, in words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

DEEPEST = 12
"""Mappings within mappings that are looked into; what lies deeper is compared as a whole."""


def of(one: Mapping[str, Any], other: Mapping[str, Any], at: tuple[str, ...] = ()) -> dict[tuple[str, ...], str]:
    """Every key that has another value, by its path from the top, and how it changed."""
    found: dict[tuple[str, ...], str] = {}
    for key in dict.fromkeys((*one, *other)):
        where = (*at, str(key))
        if key not in other:
            found[where] = f"is only in A ({shown(one[key])})"
        elif key not in one:
            found[where] = f"is only in B ({shown(other[key])})"
        elif len(at) < DEEPEST and isinstance(one[key], dict) and isinstance(other[key], dict):
            found |= of(one[key], other[key], where)
        # 1, 1.0 and true are equal in Python.
        elif one[key] != other[key] or type(one[key]) is not type(other[key]):
            found[where] = f"{shown(one[key])} -> {shown(other[key])}"
    return found


def shown(value: Any) -> str:
    """A value on one line, a text without quotes if it is one word, a digest by its first letters."""
    if isinstance(value, str) and len(value) == 64 and all(letter in "0123456789abcdef" for letter in value):
        return f"{value[:6]}.."
    if isinstance(value, str) and value and len(value) <= 60 and " " not in value:
        return value
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."
