"""Edits to a tokenizer's files: what its own loader would ignore, and what it knows without them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .checkpoint import read_json

SPECIAL = tuple(f"{name}_token" for name in ("unk", "cls", "sep", "pad", "eos", "bos", "mask"))

PARTS = ("normalizer", "pre_tokenizer", "post_processor", "decoder")
"""A tokenizer's steps that settings can change, as the package `tokenizers` calls them."""

_READ = ("unk_token", "cls_token", "pad_token")
"""Those whose absence the handlers would take for a tokenizer without them."""


def _named(folder: Path) -> dict[str, Any]:
    """The special tokens that a tokenizer's files name: None for one that it is to have none of."""
    found: dict[str, Any] = {}
    for file in (folder / "tokenizer_config.json", folder / "special_tokens_map.json"):
        said = read_json(file) if file.exists() else {}
        found |= {name: said[name] for name in SPECIAL if name in said}
    return found


def leaves_tokens_out(folder: Path) -> bool:
    """Whether special tokens may be left to the tokenizer's class, as in checkpoints of the first years."""
    return not _named(folder).keys() >= set(_READ)


def add_special_tokens(folder: Path, saved: Path) -> None:
    """Name the special tokens that `folder` leaves out in its special_tokens_map.json, as `saved` has them: the same
    tokenizer, saved by transformers. What the files say stays as it is."""
    said = _named(folder)
    more = {}
    for name, token in _named(saved).items():
        word = token.get("content") if isinstance(token, dict) else token
        if name not in said and isinstance(word, str):
            more[name] = word
    if more:
        file = folder / "special_tokens_map.json"
        stated = read_json(file) if file.exists() else {}
        text = json.dumps({**stated, **more}, ensure_ascii=False, indent=2, sort_keys=True) + "\n"
        file.write_text(text, encoding="utf-8")


def set_lower_case(folder: Path, lower: bool) -> None:
    """Make `do_lower_case` hold in tokenizer.json, whose normalizer alone decides it.

    BERT's normalizer has a switch; others have a Lowercase step, which is added in front or taken out. The setting is
    written to tokenizer_config.json too, so that transformers' own loader agrees.
    """
    file = folder / "tokenizer.json"
    data = read_json(file)
    normalizer = with_lower_case(data.get("normalizer"), lower)
    if normalizer != data.get("normalizer"):
        data["normalizer"] = normalizer
        file.write_text(json.dumps(data, ensure_ascii=False, indent=2), encoding="utf-8")
    stated = folder / "tokenizer_config.json"
    settings = read_json(stated) if stated.exists() else {}
    if settings.get("do_lower_case") != lower:
        settings["do_lower_case"] = lower
        stated.write_text(json.dumps(settings, ensure_ascii=False, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def with_lower_case(normalizer: dict[str, Any] | None, lower: bool) -> dict[str, Any] | None:
    """A normalizer, as tokenizer.json has it, that lowers case or does not."""
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
    """Write the pairs that a BPE tokenizer joins as older releases of `tokenizers` (before 0.20) read them too: two
    words in one text. Where a word holds a blank, that form could not tell the two apart."""
    file = folder / "tokenizer.json"
    data = read_json(file)
    merges = (data.get("model") or {}).get("merges")
    if merges and all(isinstance(pair, list) and not any(" " in word for word in pair) for pair in merges):
        data["model"]["merges"] = [" ".join(pair) for pair in merges]
        file.write_text(json.dumps(data, ensure_ascii=False, indent=2), encoding="utf-8")
