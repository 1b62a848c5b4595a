"""One difference between two archives: what it is about, and what it does to whoever asks the model."""

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
    """What a difference does, from nothing on."""

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
    Effect.RECORD: "The same model and answers; only the record of how it was made differs.",
    Effect.TRIED: "The same model and answers; only the requests that it is tried with differ.",
    Effect.SERVER: "The same model and answers; the server runs it otherwise.",
    Effect.OTHER: "The same model, settings and code; files differ of which only the handler knows what they do.",
    Effect.LABELS: "The same model; its labels are called otherwise, so the answers differ in words.",
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
"""What a difference in a whole file of a group does."""


@dataclass(frozen=True)
class Difference:
    """One difference, in words; what it does is for the meaning."""

    group: Group
    text: str
    effect: Effect
