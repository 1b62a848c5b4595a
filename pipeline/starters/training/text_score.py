"""Perplexity on sentences written by hand, and how much a model repeats itself when it goes on with prompts."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

_LENGTH = 64


@dataclass(frozen=True)
class Score:
    """Perplexity per token and per word on `sentences`, and the share of repeated 4-grams, in percent, over `prompts`."""

    sentences: int
    perplexity: float
    per_word: float
    prompts: int
    repeated: float


def go_on(model: Any, tokenizer: Any, prompt: str, length: int = _LENGTH, stop: bool = True) -> list[int]:
    """The token ids of the most likely continuation; without `stop` the end of the text does not end it."""
    coded = tokenizer(prompt, return_tensors="pt")
    options = {} if stop else {"eos_token_id": None}
    with torch.no_grad():
        out = model.generate(
            **coded, max_new_tokens=length, do_sample=False, pad_token_id=tokenizer.pad_token_id, **options
        )
    ids: list[int] = out[0, coded["input_ids"].shape[1] :].tolist()
    return ids


def repeated(ids: list[int]) -> float:
    """The share of 4-grams that stood earlier in the same text, between 0 and 1."""
    grams = [tuple(ids[at : at + 4]) for at in range(len(ids) - 3)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def score(model: Any, tokenizer: Any, path: Path) -> Score:
    """The score on a JSON file {"sentences": [...], "prompts": [...]}."""
    held = json.loads(path.read_text(encoding="utf-8"))
    total, tokens, words = 0.0, 0, 0
    for sentence in held["sentences"]:
        ids = tokenizer("<|endoftext|>" + sentence, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            total += float(model(input_ids=ids, labels=ids).loss) * (ids.shape[1] - 1)
        tokens, words = tokens + ids.shape[1] - 1, words + len(sentence.split())
    shares = [repeated(go_on(model, tokenizer, prompt)) for prompt in held["prompts"]]
    return Score(len(held["sentences"]), round(math.exp(total / tokens), 1), round(math.exp(total / words), 1),
                 len(shares), round(100 * sum(shares) / len(shares), 1))  # fmt: skip
