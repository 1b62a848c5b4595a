"""A tokenizer's files: what the command itself reads of them, and a worker that tokenizes by them."""

from __future__ import annotations

import json
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from mar_pipeline.answers import corpus
from mar_pipeline.errors import MarError
from mar_pipeline.model import settings_files, tokenizer
from mar_pipeline.model.address import STARTERS
from tests.support.workers import work

from .changes import of_json
from .harness import Reader, check


def _small(task: str) -> dict[str, Any]:
    """A starter's tokenizer.json with few words."""
    data: dict[str, Any] = json.loads((STARTERS / task / "tokenizer.json").read_text())
    vocab = data["model"]["vocab"]
    data["model"]["vocab"] = dict(list(vocab.items())[:300])
    if data["model"].get("merges"):
        known = data["model"]["vocab"]
        pairs = [pair if isinstance(pair, list) else pair.split(" ") for pair in data["model"]["merges"]]
        data["model"]["merges"] = [pair for pair in pairs if {*pair, "".join(pair)} <= known.keys()][:30]
    return data


_SPLIT = {"type": "Split", "pattern": {"Regex": r"(a|aa)+$"}, "behavior": "Isolated", "invert": False}
_SEEDS: list[Any] = [
    _small("seq_classification"),
    _small("text_generation"),
    {**_small("seq_classification"), "pre_tokenizer": _SPLIT, "normalizer": {"type": "Precompiled"}},
    json.loads((STARTERS / "seq_classification" / "tokenizer_config.json").read_text()),
    {"added_tokens_decoder": {"0": {"content": "[PAD]", "special": True}}, "extra_special_tokens": ["<a>"]},
]
_number = count()


def read(data: bytes, folder: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"):
        (folder / name).write_bytes(data)
    if next(_number) % 10 == 0:
        job = {"samples": [{"text": "Where does the baker work?"}], "fields": ["text"], "limit": 8, "long": [20]}
        with suppress(MarError):
            work("samples", {**job, "folder": str(folder), "cut": True, "without_transformers": True}, scratch=folder)
    for step in (
        lambda: settings_files.sanitize(folder, "model"),
        lambda: corpus.texts(corpus.special_tokens(folder)),
        lambda: tokenizer.set_lower_case(folder, True),
        lambda: tokenizer.for_older_readers(folder),
    ):
        with suppress(MarError):
            step()


READER = Reader("tokenizer", read, of_json(_SEEDS))


@pytest.mark.slow
def test_no_tokenizer_ends_the_command_or_its_worker(tmp_path: Path) -> None:
    check(READER, tmp_path)
