"""Reads graph.json, which describes an archive's compiled or traced graphs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .weights import damaged, present


def read(file: Path, kinds: dict[str, Any]) -> dict[str, Any]:
    """The contents of graph.json. `kinds` gives the type, or a tuple of types, of each required field. Raises
    ValueError if the file is missing or is not a JSON object, or if a field is missing or has another type."""
    present(file)
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        facts = None
    if not isinstance(facts, dict):
        raise damaged(file, "it is not a JSON object")
    for name, kind in kinds.items():
        if name not in facts or not isinstance(facts[name], kind):
            raise damaged(file, f"it has no {name} that can be read")
    return facts
