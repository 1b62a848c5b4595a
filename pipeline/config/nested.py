"""Mappings in mappings, as YAML has them, by the place of a value: the keys that lead to it."""

from __future__ import annotations

from typing import Any

from ..files.yaml import Where


def keys(data: dict[str, Any], prefix: str = "") -> set[str]:
    """The dotted name of every key in `data`."""
    found = set()
    for key, value in data.items():
        found.add(prefix + key)
        if isinstance(value, dict):
            found |= keys(value, f"{prefix}{key}.")
    return found


def deepest(data: Any, where: Where) -> Where:
    """The longest start of `where` that is a key of a mapping in `data`."""
    for depth, part in enumerate(where):
        if not isinstance(data, dict) or part not in data:
            return where[:depth]
        data = data[part]
    return where


def remove(data: dict[str, Any], where: Where) -> None:
    """Take the key `where` out of `data`."""
    section: Any = data
    for part in where[:-1]:
        section = section.get(part, {})
    section.pop(where[-1], None)


def forget_below(known: dict[Where, Any], where: Where) -> None:
    """Take out what is known of `where`, and of all that is below it."""
    for path in [path for path in known if path[: len(where)] == where]:
        del known[path]
