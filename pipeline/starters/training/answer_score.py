"""Exact match and token F1 of a model for question answering on a file of questions."""

from __future__ import annotations

import json
import re
import string
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

_LONGEST = 20
"""Tokens of an answer, at most."""


@dataclass(frozen=True)
class Score:
    """Shares in percent over `count` questions."""

    count: int
    exact: float
    f1: float


def answer(model: Any, tokenizer: Any, question: str, context: str) -> str:
    """The span of the context, at most 20 tokens long, whose start and end score highest together."""
    coded = tokenizer(question, context, return_tensors="pt", truncation="only_second", max_length=256)
    with torch.no_grad():
        out = model(input_ids=coded["input_ids"], attention_mask=coded["attention_mask"])
    own = torch.tensor([part == 1 for part in coded.encodings[0].sequence_ids])
    start, end = (logits[0].masked_fill(~own, -1e4) for logits in (out.start_logits, out.end_logits))
    both = (start[:, None] + end[None, :]).triu().tril(_LONGEST - 1)
    both = both.masked_fill(torch.ones_like(both).triu().tril(_LONGEST - 1) == 0, -1e9)
    first, last = divmod(int(both.argmax()), both.shape[1])
    offsets = coded.encodings[0].offsets
    return context[offsets[first][0] : offsets[last][1]].strip()


def words(text: str) -> list[str]:
    """Lower-case words without punctuation and articles."""
    text = "".join(" " if letter in string.punctuation.replace("$", "") else letter for letter in text.lower())
    return [word for word in re.split(r"\s+", text) if word and word not in ("a", "an", "the")]


def overlap(given: str, wanted: str) -> float:
    """F1 of the words of two answers, between 0 and 1."""
    one, two = words(given), words(wanted)
    shared = sum((Counter(one) & Counter(two)).values())
    return 2 * shared / (len(one) + len(two)) if shared else float(one == two)


def score(model: Any, tokenizer: Any, path: Path, show: bool = False) -> Score:
    """The score on a JSON file [{"context": ..., "questions": [[question, answer, other answer ...], ...]}, ...]."""
    exact, f1 = [], []
    for part in json.loads(path.read_text(encoding="utf-8")):
        for question, *wanted in part["questions"]:
            given = answer(model, tokenizer, question, part["context"])
            exact.append(max(words(given) == words(text) for text in wanted))
            f1.append(max(overlap(given, text) for text in wanted))
            if show and not exact[-1]:
                print(f"{question}  wanted {wanted}  given {given!r}  in {part['context']}")
    return Score(len(f1), round(100 * sum(exact) / len(f1), 1), round(100 * sum(f1) / len(f1), 1))
