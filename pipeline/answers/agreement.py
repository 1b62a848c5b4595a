"""Decides whether an archive answers like the original model: each sample alone, in two orders, and beside others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ..errors import MismatchError
from .compare import Difference, differences, largest, table


def compared(
    name: str, model: str, expected: list[Any], got: dict[str, Any], tolerance: float, again: Callable[[], list[Any]]
) -> dict[str, Any]:
    """The largest difference of a score, and what was compared: {"largest_difference", "compared": {"samples", "alone",
    "batches"}}.

    `name` is the archive's, `model` the class of the original, `expected` are its answers, `got` is the result of
    `emulator.answers`. Raises MismatchError if a difference is too large, or anything else differs; `again` then asks
    the original model once more.
    """
    wrong = {
        how: [one for where, wanted, given in rows for one in differences(where, wanted, given, tolerance)]
        for how, rows in _rows(expected, got).items()
    }
    every = [one for some in wrong.values() for one in some]
    if every:
        second = again()
        own = _between(expected, second, tolerance, "")
        before = _between(got["single"], got["again"], tolerance, "")
        raise _mismatch(name, model, wrong, every, own, before, tolerance)
    rows = _rows(expected, got)
    return {
        "largest_difference": max(largest(wanted, given) for some in rows.values() for _, wanted, given in some),
        "compared": {
            "samples": len(expected),
            "alone": len(rows["alone"]),
            "batches": 1 + len(got["beside"]),
        },
    }


def _rows(expected: list[Any], got: dict[str, Any]) -> dict[str, list[tuple[str, Any, Any]]]:
    """Where an answer is from, the original's answer and the archive's: of samples alone, and of those in batches."""

    def rows(answers: list[Any], how: str) -> Iterator[tuple[str, Any, Any]]:
        for number, (wanted, given) in enumerate(zip(expected, answers, strict=True), 1):
            yield f"sample {number}{how}", wanted, given

    beside = [
        (f"sample {number + 1} beside {other + 1}", expected[number], answer)
        for pair, answers in got["beside"]
        for number, other, answer in zip(pair, reversed(pair), answers, strict=True)
    ]
    return {
        "alone": [*rows(got["single"], ""), *rows(got["again"], " asked again")],
        "batches": [*rows(got["batched"], " in a batch"), *beside],
    }


def _between(ones: list[Any], others: list[Any], tolerance: float, how: str) -> list[Difference]:
    """The differences between two lists of answers to the samples."""
    return [
        difference
        for number, (one, other) in enumerate(zip(ones, others, strict=True), 1)
        for difference in differences(f"sample {number}{how}", one, other, tolerance)
    ]


def _mismatch(
    name: str,
    model: str,
    wrong: dict[str, list[Difference]],
    every: list[Difference],
    own: list[Difference],
    before: list[Difference],
    tolerance: float,
) -> MismatchError:
    """The error, with the cause if the answers tell it: `own` are the differences between two answers of the original,
    `before` those between two answers of the archive."""
    count = f"{len(every)} differences (tolerance {tolerance:g})"
    if own:
        return MismatchError(
            f"{name} cannot be verified: the original model itself ({model}) answers the same samples differently each "
            "time.",
            table(own, "first", "second"),
            "It draws random numbers when it answers: set a seed in its config.json, if it has one (Reformer: "
            "hash_seed).",
        )
    if before:
        return MismatchError(
            f"{name} does not answer like the original: {count}. The answers of {model} depend on what was asked "
            "before.",
            table(before, "first", "asked again"),
            "Set handler.max_length to a length that all texts of the model's training had, if long texts alone change "
            "the answers. Otherwise the model cannot be served: one request would change another's answer.",
        )
    if not wrong["alone"]:
        return MismatchError(
            f"{name} does not answer like the original in batches: {count}. Alone, each sample is answered like it: "
            f"the answers of {model} depend on the other texts of a batch.",
            table(every, "original model", "archive"),
            "The model reads padding, or computes short texts otherwise beside a long one. Set handler.max_length "
            "below the length at which it changes, or verify.tolerance if all differences are small.",
        )
    return MismatchError(
        f"{name} does not answer like the original: {count}.", table(every, "original model", "archive")
    )
