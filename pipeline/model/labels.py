"""Labels: their names in config.json, and their number in the weights of the head."""

from __future__ import annotations

import json
from typing import Any

from ..errors import InputError


def labels(config: dict[str, Any]) -> dict[int, str]:
    """Index -> label name, as transformers' PretrainedConfig reads it (two labels if the config has none). Raises
    InputError if id2label is not a mapping of 0, 1, 2, ... to names, or num_labels not a number."""
    names = config.get("id2label")
    if names:
        try:
            by_index = {int(index): name for index, name in sorted(names.items(), key=lambda item: int(item[0]))}
        except (AttributeError, ValueError, TypeError):
            by_index = {}
        if len(by_index) > MOST_LABELS:
            raise InputError(
                f"id2label in the checkpoint's config.json has {len(by_index):,} labels; {MOST_LABELS:,} are the most.",
                fix="Restore the config.json that was saved with the weights.",
            )
        has_none = any(name is None or isinstance(name, list | dict) for name in by_index.values())
        if not by_index or has_none or list(by_index) != list(range(len(names))):
            raise InputError(
                "id2label in the checkpoint's config.json is not a mapping of 0, 1, 2, ... to names.",
                fix='Fix it there: {"0": "first", "1": "second", ...}.',
            )
        return {index: str(name) for index, name in by_index.items()}
    number = config.get("num_labels", 2)
    if type(number) is not int or not 0 < number <= MOST_LABELS:
        raise InputError(
            f"num_labels in the checkpoint's config.json is {json.dumps(number)[:80]}, which is not a number from 1 to "
            f"{MOST_LABELS:,}.",
            fix="Correct it there, or list the names of the labels as id2label.",
        )
    return unnamed(number)


def unnamed(number: int) -> dict[int, str]:
    """The names that transformers gives to labels without names."""
    return {index: f"LABEL_{index}" for index in range(number)}


MOST_LABELS = 100_000

HEADS = frozenset(
    f"{layer}.weight"
    for layer in ("classifier", "score", "logits_proj", "classifier.out_proj", "score.out_proj",
                  "classifier.linear_out", "sequence_summary.summary")
)  # fmt: skip
"""The weights with a row for each label, in transformers' classes for encoders and decoders."""


def head(tensors: dict[str, Any]) -> tuple[str, int] | None:
    """The weight with a row for each label, and the number of its rows, from a safetensors file's header; None if it
    has none."""
    for name in sorted(HEADS & tensors.keys()):
        if len(tensors[name]["shape"]) == 2:
            return name, rows(name, tensors[name]["shape"])
    return None


def rows(name: str, shape: list[int]) -> int:
    """The number of labels of a head's weight. Raises InputError if no head has such a shape."""
    if not shape or not 0 < shape[0] <= MOST_LABELS:
        raise InputError(
            f"The shape of the head's weight {name} is {shape}; a head has 1 to {MOST_LABELS:,} labels.",
            "The file is damaged, or has another weight under this name.",
            "Restore it, or save the model again.",
        )
    return shape[0]
