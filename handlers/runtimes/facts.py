"""graph.json: what an archive says of its graphs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .weights import damaged, present


def read(file: Path, kinds: dict[str, Any]) -> dict[str, Any]:
    """What graph.json says. Raises ValueError if it is missing or damaged: if it is no object, or lacks one of `kinds`
    (name -> its type, or several) or has another type there."""
    present(file)
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        facts = None
    if not isinstance(facts, dict):
        raise damaged(file, "it holds no JSON object")
    for name, kind in kinds.items():
        if name not in facts or not isinstance(facts[name], kind):
            raise damaged(file, f"it has no {name} that can be read")
    return facts
