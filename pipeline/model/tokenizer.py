"""Edits a tokenizer's files: it writes out settings that `tokenizers` ignores or that transformers' classes imply."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .checkpoint import read_json

SPECIAL = tuple(f"{name}_token" for name in ("unk", "cls", "sep", "pad", "eos", "bos", "mask"))

PARTS = ("normalizer", "pre_tokenizer", "post_processor", "decoder")
"""The steps of tokenizer.json that settings can change."""

_READ = ("unk_token", "cls_token", "pad_token")
"""The special tokens that the handlers read from the files."""


def _named(folder: Path) -> dict[str, Any]:
    """The special tokens that a tokenizer's files name; None for a token that the tokenizer shall not have."""
    tokens: dict[str, Any] = {}
    for file in (folder / "tokenizer_config.json", folder / "special_tokens_map.json"):
        settings = read_json(file) if file.exists() else {}
        tokens |= {name: settings[name] for name in SPECIAL if name in settings}
    return tokens


def leaves_tokens_out(folder: Path) -> bool:
    """Whether the files leave special tokens to the tokenizer's class, as early checkpoints do."""
    return not _named(folder).keys() >= set(_READ)


def add_special_tokens(folder: Path, saved: Path) -> None:
    """Add the special tokens that the files in `folder` leave out to its special_tokens_map.json. They are taken from
    `saved`, the same tokenizer saved by transformers. Tokens that the files name are not changed."""
    named = _named(folder)
    missing = {}
    for name, token in _named(saved).items():
        word = token.get("content") if isinstance(token, dict) else token
        if name not in named and isinstance(word, str):
            missing[name] = word
    if missing:
        file = folder / "special_tokens_map.json"
        existing = read_json(file) if file.exists() else {}
        text = json.dumps({**existing, **missing}, ensure_ascii=False, indent=2, sort_keys=True) + "\n"
        file.write_text(text, encoding="utf-8")


def set_lower_case(folder: Path, lower: bool) -> None:
    """Apply `do_lower_case` to tokenizer.json, whose normalizer decides whether case is lowered.

    BERT's normalizer has a switch; for others a Lowercase step is added in front or removed. The setting is written to
    tokenizer_config.json too, so that transformers' own loader agrees.
    """
    file = folder / "tokenizer.json"
    data = read_json(file)
    normalizer = with_lower_case(data.get("normalizer"), lower)
    if normalizer != data.get("normalizer"):
        data["normalizer"] = normalizer
        file.write_text(json.dumps(data, ensure_ascii=False, indent=2), encoding="utf-8")
    config = folder / "tokenizer_config.json"
    settings = read_json(config) if config.exists() else {}
    if settings.get("do_lower_case") != lower:
        settings["do_lower_case"] = lower
        config.write_text(json.dumps(settings, ensure_ascii=False, indent=2, sort_keys=True) + "\n", encoding="utf-8")


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
    merges = (data.get("model") or {}).get("merges")
    if merges and all(isinstance(pair, list) and not any(" " in word for word in pair) for pair in merges):
        data["model"]["merges"] = [" ".join(pair) for pair in merges]
        file.write_text(json.dumps(data, ensure_ascii=False, indent=2), encoding="utf-8")
