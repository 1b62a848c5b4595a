"""Edits to a tokenizer's files that its own loader would ignore."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .checkpoint import read_json


def set_lower_case(folder: Path, lower: bool) -> None:
    """Make `do_lower_case` hold in tokenizer.json, whose normalizer alone decides it.

    BERT's normalizer has a switch; others have a Lowercase step, which is added in front or taken out. The setting is
    written to tokenizer_config.json too, so that transformers' own loader agrees.
    """
    file = folder / "tokenizer.json"
    data = read_json(file)
    normalizer = _switched(data.get("normalizer"), lower)
    if normalizer != data.get("normalizer"):
        data["normalizer"] = normalizer
        file.write_text(json.dumps(data, ensure_ascii=False, indent=2), encoding="utf-8")
    stated = folder / "tokenizer_config.json"
    settings = read_json(stated) if stated.exists() else {}
    if settings.get("do_lower_case") != lower:
        settings["do_lower_case"] = lower
        stated.write_text(json.dumps(settings, ensure_ascii=False, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _switched(normalizer: dict[str, Any] | None, lower: bool) -> dict[str, Any] | None:
    steps = _steps(normalizer)
    if any(step["type"] == "BertNormalizer" for step in steps):
        steps = [{**step, "lowercase": lower} if step["type"] == "BertNormalizer" else step for step in steps]
    else:
        steps = [step for step in steps if step["type"] != "Lowercase"]
        if lower:
            steps.insert(0, {"type": "Lowercase"})
    if normalizer is not None and normalizer.get("type") == "Sequence":
        return {"type": "Sequence", "normalizers": steps}
    if not steps:
        return None
    return steps[0] if len(steps) == 1 else {"type": "Sequence", "normalizers": steps}


def _steps(normalizer: dict[str, Any] | None) -> list[dict[str, Any]]:
    if normalizer is None:
        return []
    return list(normalizer["normalizers"]) if normalizer.get("type") == "Sequence" else [normalizer]
