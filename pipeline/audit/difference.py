"""One difference between two archives: its group, and its effect on the model's answers."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

Group = Literal[
    "weights", "tokenizer", "settings", "labels", "handler code", "samples", "versions", "source", "manifest",
    "other files", "container",
]  # fmt: skip
GROUPS: tuple[Group, ...] = Group.__args__  # type: ignore[attr-defined]


class Effect(IntEnum):
    """The effect of a difference, from harmless to changed answers."""

    CONTAINER = 1
    RECORD = 2
    TRIED = 3
    SERVER = 4
    OTHER = 5
    LABELS = 6
    ANSWERS = 7


MEANINGS = {
    0: "Nothing differs.",
    Effect.CONTAINER: "The same files, so the same model and answers: only the container differs.",
    Effect.RECORD: "The same model and answers; only the record of the build differs.",
    Effect.TRIED: "The same model and answers; only the sample requests differ.",
    Effect.SERVER: "The same model and answers; the server runs it differently.",
    Effect.OTHER: "The same model, settings and code; files differ that only the handler knows how to use.",
    Effect.LABELS: "The same model; its labels have other names, so the answers differ in those.",
    Effect.ANSWERS: "The answers may differ.",
}

EFFECTS: dict[Group, Effect] = {
    "weights": Effect.ANSWERS,
    "tokenizer": Effect.ANSWERS,
    "settings": Effect.ANSWERS,
    "labels": Effect.LABELS,
    "handler code": Effect.ANSWERS,
    "samples": Effect.TRIED,
    "versions": Effect.RECORD,
    "source": Effect.RECORD,
    "manifest": Effect.SERVER,
    "other files": Effect.OTHER,
    "container": Effect.CONTAINER,
}
"""The effect of a difference in a file of each group, compared as a whole."""


@dataclass(frozen=True)
class Difference:
    """One difference in words, and its effect."""

    group: Group
    text: str
    effect: Effect
