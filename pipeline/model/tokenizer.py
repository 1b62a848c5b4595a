"""Edits an archive's tokenizer.json: case, and the format that older readers know."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import InputError
from .checkpoint import read_json

PARTS = ("normalizer", "pre_tokenizer", "post_processor", "decoder")
"""The steps of tokenizer.json that settings can change."""

FLAGS = ("truncation_side", "split_special_tokens", "model_input_names")
"""Settings of tokenizer_config.json that change what transformers does beside tokenizer.json."""


def set_lower_case(folder: Path, lower: bool) -> None:
    """Apply `do_lower_case` to tokenizer.json, whose normalizer decides whether case is lowered.

    BERT's normalizer has a switch; for others a Lowercase step is added in front or removed. The setting is written to
    tokenizer_config.json too, so that transformers' own loader agrees.
    """
    file = folder / "tokenizer.json"
    data = read_json(file)
    with _expected():
        normalizer = with_lower_case(data.get("normalizer"), lower)
    if normalizer != data.get("normalizer"):
        data["normalizer"] = normalizer
        file.write_text(json.dumps(data, ensure_ascii=False, indent=2), encoding="utf-8")
    config = folder / "tokenizer_config.json"
    settings = read_json(config) if config.exists() else {}
    if settings.get("do_lower_case") != lower:
        settings["do_lower_case"] = lower
        config.write_text(json.dumps(settings, ensure_ascii=False, indent=2, sort_keys=True) + "\n", encoding="utf-8")


@contextmanager
def _expected() -> Iterator[None]:
    """Raises InputError where tokenizer.json has another value than a tokenizer has."""
    try:
        yield
    except (AttributeError, LookupError, TypeError) as error:
        raise InputError(
            f"tokenizer.json is not a tokenizer: {error}.", fix="Save the tokenizer again with save_pretrained()."
        ) from None


def with_lower_case(normalizer: dict[str, Any] | None, lower: bool) -> dict[str, Any] | None:
    """The normalizer (an object of tokenizer.json, or None), changed to lower case or not."""
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


def for_older_readers(folder: Path) -> None:
    """Write a BPE tokenizer's merges in the form that releases of `tokenizers` before 0.20 read too: each pair as one
    text, separated by a blank. If a word contains a blank, that form is ambiguous, and the file is not changed."""
    file = folder / "tokenizer.json"
    data = read_json(file)
    with _expected():
        merges = (data.get("model") or {}).get("merges")
        if not merges or not all(isinstance(pair, list) and not any(" " in word for word in pair) for pair in merges):
            return
        data["model"]["merges"] = [" ".join(pair) for pair in merges]
    file.write_text(json.dumps(data, ensure_ascii=False, indent=2), encoding="utf-8")
