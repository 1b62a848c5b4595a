"""How valid inputs are changed: values of JSON, bytes, and whole inputs of no meaning."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

from hypothesis import strategies as st

_NUMBERS = (0, -1, 1, 2**31, 2**32 - 1, 2**53 + 1, 2**63, 2**64, 10**12, 10**30, 1e308, 0.5, float("inf"), float("nan"))
_TEXTS = ("", "\0", "../../x", "/etc/passwd", "a" * 300, "\x1b[31m", "\ud800", "é\u202e", "1" * 5000, "__proto__", "-")
_OTHERS: tuple[Any, ...] = (None, True, False, [], {}, [[]], [{}], {"": None}, [0] * 50, "deep")
_VALUES = st.sampled_from([*_NUMBERS, *_TEXTS, *_OTHERS]).map(deepcopy)
_DEEP = "[" * 600 + "]" * 600


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) in a JSON value."""
    places: list[tuple[Any, Any]] = []
    queue = [value]
    while queue:
        outer = queue.pop()
        inner = list(outer.items()) if isinstance(outer, dict) else list(enumerate(outer))
        for key, item in inner:
            places.append((outer, key))
            if isinstance(item, dict | list):
                queue.append(item)
    return places


@st.composite
def changed_json(draw: Callable[..., Any], seeds: Sequence[Any]) -> Any:
    """A JSON value with one to four changes; it may be anything."""
    value = deepcopy(draw(st.sampled_from(list(seeds))))
    for _ in range(draw(st.integers(1, 4))):
        places = _places(value)
        if not places:
            return draw(_VALUES)
        container, key = places[draw(st.integers(0, len(places) - 1))]
        how = draw(st.sampled_from(("set", "set", "set", "remove", "copy", "rename", "add")))
        if how == "set":
            container[key] = draw(_VALUES)
        elif how == "remove":
            del container[key]
        elif how == "copy":
            other, its = places[draw(st.integers(0, len(places) - 1))]
            container[key] = deepcopy(other[its]) if not isinstance(other[its], dict | list) else draw(_VALUES)
        elif isinstance(container, dict):
            name = draw(st.sampled_from(_TEXTS))
            container[name] = container.pop(key) if how == "rename" else draw(_VALUES)
        else:
            container.insert(key, draw(_VALUES))
    return value


def text_of(value: Any) -> bytes:
    """A JSON value as bytes, where "deep" stands for many lists."""
    return json.dumps(value).replace('"deep"', _DEEP).encode()


@st.composite
def changed_bytes(draw: Callable[..., Any], whole: st.SearchStrategy[bytes]) -> bytes:
    """An input with up to six changes of its bytes."""
    data = bytearray(draw(whole))
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, len(data)))
        how = draw(st.sampled_from(("flip", "number", "insert", "delete", "copy", "cut")))
        if how == "flip" and at < len(data):
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif how == "number":
            size = draw(st.sampled_from((1, 2, 4, 8)))
            value = draw(st.sampled_from((0, 1, 0x7F, 0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**63, 2**64 - 1)))
            data[at : at + size] = (value % 256**size).to_bytes(size, "little")
        elif how == "insert":
            data[at:at] = draw(st.binary(max_size=20))
        elif how == "delete":
            del data[at : at + draw(st.integers(1, 64))]
        elif how == "copy":
            start = draw(st.integers(0, len(data)))
            data[at:at] = data[start : start + draw(st.integers(1, 200))]
        else:
            del data[at:]
    return bytes(data)


def of_json(seeds: Sequence[Any]) -> st.SearchStrategy[bytes]:
    """Texts that are, or were, JSON: changed values, changed bytes, and neither."""
    right = changed_json(seeds).map(text_of)
    return st.one_of(right, right, changed_bytes(right), st.binary(max_size=400))
