"""Scores that are not numbers are an error of their own: JSON has neither NaN nor infinity."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from handlers.inference.finite import usable
from handlers.inference.generation import Parameters, Row

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("logits", "expected"),
    [([0.0, -INF], True), ([NAN, 1.0], False), ([INF, 0.0], False), ([-INF, -INF], False), ([], True)],
)
def test_minus_infinity_excludes_a_label_and_anything_else_that_is_no_number_is_an_error(
    logits: list[float], expected: bool
) -> None:
    assert usable(torch.tensor(logits)) is expected


def test_a_text_whose_next_token_has_no_score_ends_as_broken() -> None:
    words: Any = SimpleNamespace(decode=lambda _: "")
    row = Row([1], Parameters(do_sample=True), words, frozenset())
    row.accept(row.choose(torch.tensor([NAN, 0.0])))
    assert row.broken
    assert row.finish == "length"
    assert row.new == []
