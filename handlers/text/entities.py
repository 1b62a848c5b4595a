"""Aggregates token scores to entities, with transformers' aggregation strategies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Tuple

import torch


@dataclass
class Piece:
    """A token or a word: its character offsets, and the probability of each label, [labels]."""

    start: int
    end: int
    scores: torch.Tensor
    continues: bool
    """Whether it continues the word of the piece before."""


def entities(pieces: list[Piece], labels: list[str], strategy: str, text: str) -> list[dict[str, Any]]:
    """The entities of a text in order, without those labelled O.

    `none` returns each token, `simple` joins tokens of the same label. `first`, `average` and `max` first give all
    tokens of a word one label: by the scores of its first token, their mean, or the token with the highest score.
    """
    if strategy in ("first", "average", "max"):
        pieces = [_word(group, strategy) for group in _words(pieces)]
    tagged = []
    for piece in pieces:
        best = int(piece.scores.argmax())
        tagged.append((labels[best], float(piece.scores[best]), piece.start, piece.end))
    if strategy != "none":
        tagged = [_joined(group) for group in _groups(tagged)]
    return [
        {"label": label, "score": score, "text": text[start:end], "start": start, "end": end}
        for label, score, start, end in tagged
        if label != "O"
    ]


Tagged = Tuple[str, float, int, int]


def _words(pieces: list[Piece]) -> list[list[Piece]]:
    words: list[list[Piece]] = []
    for piece in pieces:
        if piece.continues and words:
            words[-1].append(piece)
        else:
            words.append([piece])
    return words


def _word(group: list[Piece], strategy: str) -> Piece:
    if strategy == "first":
        scores = group[0].scores
    elif strategy == "max":
        scores = max(group, key=lambda piece: float(piece.scores.max())).scores
    else:
        scores = torch.stack([piece.scores for piece in group]).mean(0)
    return Piece(group[0].start, group[-1].end, scores, False)


def _split(label: str) -> tuple[bool, str]:
    """Whether a label begins an entity, and its name: B- begins one; I- or no prefix continues one."""
    return (label.startswith("B-"), label[2:]) if label.startswith(("B-", "I-")) else (False, label)


def _groups(tagged: list[Tagged]) -> list[list[Tagged]]:
    groups: list[list[Tagged]] = []
    for piece in tagged:
        begins, name = _split(piece[0])
        if groups and not begins and _split(groups[-1][-1][0])[1] == name:
            groups[-1].append(piece)
        else:
            groups.append([piece])
    return groups


def _joined(group: list[Tagged]) -> Tagged:
    # The part after the first dash, whatever the prefix is, as in transformers.
    name = group[0][0].split("-", 1)[-1]
    return name, sum(piece[1] for piece in group) / len(group), group[0][2], group[-1][3]
