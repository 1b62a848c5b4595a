"""Parses JSON that others wrote. Nesting has a limit, so that code that visits every value can be recursive; and every
text can be encoded, so that it can be printed and written to files."""

from __future__ import annotations

import json
import re
from typing import Any

DEEPEST = 100
"""The most objects and lists in one another. Settings have less than ten."""

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def loads(text: str | bytes) -> Any:
    """The value of a JSON text. Raises ValueError if it is not JSON, is nested too deeply, or has half of a surrogate
    pair."""
    text = text if isinstance(text, str) else text.decode("utf-8-sig")
    try:
        value = json.loads(text)
        if _SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError(f"it is nested more than {DEEPEST} deep") from None
    level = [value] if isinstance(value, (dict, list)) else []
    for _ in range(DEEPEST):
        if not level:
            return value
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, (dict, list))
        ]
    if level:
        raise ValueError(f"it is nested more than {DEEPEST} deep")
    return value
