"""JSON as every reader of an archive's files reads it: RFC 8259, without the extensions of Python's `json`."""

from __future__ import annotations

import json
import re
from typing import Any

DEEPEST = 100
"""Levels of nested lists and objects; Python's own parser stops at about a thousand."""
MOST = 4_000_000
"""The most lists and objects: tokenizer.json of a large vocabulary has half a million."""

# A text, a bracket, or a word that is no JSON. A text that does not end is matched up to the end of the file.
_PARTS = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?|[\[{]|[\]}]|NaN|-?Infinity', re.DOTALL)


class NotJson(ValueError):
    """Why a text is not JSON, with its place. `extension` is true for NaN and Infinity, which Python's parser takes."""

    def __init__(self, what: str, *, extension: bool = False) -> None:
        super().__init__(what)
        self.extension = extension


def check(text: str) -> None:
    """Raise NotJson if the text is not one JSON value, names a key twice in one object, or is nested too deep."""
    if text.startswith("\ufeff"):
        raise NotJson("line 1: it begins with a byte order mark")
    if text.count("[") + text.count("{") > MOST:
        raise NotJson(f"it has more than {MOST:,} lists and objects")
    constants: list[str] = []
    try:
        json.loads(text, object_pairs_hook=_once, parse_constant=constants.append)
    except json.JSONDecodeError as error:
        raise NotJson(f"line {error.lineno}, column {error.colno}: {error.msg}") from None
    except RecursionError:
        raise NotJson(f"it is nested more than {DEEPEST} deep") from None
    except NotJson:
        raise
    except ValueError as error:  # a number of more digits than Python converts
        raise NotJson(str(error).partition(";")[0]) from None
    if constants or text.count("[") + text.count("{") > DEEPEST:
        _parts(text)


def _once(pairs: list[tuple[str, Any]]) -> None:
    """Refuse a key that an object has twice; readers differ in which value they take."""
    if len({key for key, _ in pairs}) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise NotJson(f"the key {json.dumps(key)[:60]} is given twice in one object")
            seen.add(key)


def _parts(text: str) -> None:
    """Raise NotJson for the first constant that is no JSON, and where nesting exceeds DEEPEST."""
    depth = 0
    for part in _PARTS.finditer(text):
        token = part[0]
        if token in "[{":
            depth += 1
        elif token in "]}":
            depth -= 1
        elif not token.startswith('"'):
            raise NotJson(f"line {text.count(chr(10), 0, part.start()) + 1}: {token} is not JSON", extension=True)
        if depth > DEEPEST:
            line = text.count("\n", 0, part.start()) + 1
            raise NotJson(f"line {line}: it is nested more than {DEEPEST} deep")
