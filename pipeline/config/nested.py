"""Nested mappings, as YAML has them, addressed by paths: the keys that lead to a value."""

from __future__ import annotations

from typing import Any

from ..files.yaml import Where


def keys(data: dict[str, Any], prefix: str = "") -> set[str]:
    """The dotted name of every key in `data`."""
    names = set()
    for key, value in data.items():
        names.add(prefix + key)
        if isinstance(value, dict):
            names |= keys(value, f"{prefix}{key}.")
    return names


def deepest(data: Any, where: Where) -> Where:
    """The longest prefix of `where` that exists in `data`."""
    for depth, part in enumerate(where):
        if not isinstance(data, dict) or part not in data:
            return where[:depth]
        data = data[part]
    return where


def remove(data: dict[str, Any], where: Where) -> None:
    """Remove the key `where` from `data`."""
    section: Any = data
    for part in where[:-1]:
        section = section.get(part, {})
    section.pop(where[-1], None)


def forget_below(known: dict[Where, Any], where: Where) -> None:
    """Remove the entries of `where` and of all paths below it."""
    for path in [path for path in known if path[: len(where)] == where]:
        del known[path]
