"""Spans, against every pair of a start and an end."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")

from handlers import spans  # noqa: E402

pytestmark = pytest.mark.slow


def shares(logits: list[float], among: list[int]) -> dict[int, float]:
    """The softmax over some places."""
    whole = math.fsum(math.exp(logits[place]) for place in among)
    return {place: math.exp(logits[place]) / whole for place in among}


@pytest.mark.parametrize("null", [None, 0])
@pytest.mark.parametrize("longest", [1, 3, 30])
def test_the_best_spans_are_those_of_all_pairs(longest: int, null: int | None) -> None:
    generator = torch.Generator().manual_seed(longest)
    start, end = torch.randn(2, 12, generator=generator) * 2
    context = torch.tensor([False, False, *[True] * 8, False, True])
    places = [place for place in range(12) if context[place]]
    scored = [*places] if null is None else [null, *places]
    first, last = shares(start.tolist(), scored), shares(end.tolist(), scored)
    pairs = [(first[a] * last[b], a, b) for a in places for b in places if a <= b < a + longest]
    found, none = spans.best(start, end, context, null, longest, 5)
    wanted = sorted(pairs, reverse=True)[:5]
    assert [span[1:] for span in found] == [span[1:] for span in wanted]
    assert [span[0] for span in found] == pytest.approx([span[0] for span in wanted])
    assert none == pytest.approx(0.0 if null is None else first[0] * last[0])
