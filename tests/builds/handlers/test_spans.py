"""Spans, against every pair of a start and an end."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")

from handlers.text import spans  # noqa: E402

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
    words = [(place, place + 1) for place in range(12)]
    found, none = spans.best(start, end, context, words, null, longest, 5)
    wanted = sorted(pairs, reverse=True)[:5]
    assert [span[1:] for span in found] == [(a, b + 1) for _, a, b in wanted]
    assert [span[0] for span in found] == pytest.approx([span[0] for span in wanted])
    assert none == pytest.approx(0.0 if null is None else first[0] * last[0])


@pytest.mark.parametrize("longest", [1, 2, 5, 1000])
def test_a_span_of_words_has_the_score_of_its_best_tokens_and_a_character_at_least(longest: int) -> None:
    generator = torch.Generator().manual_seed(longest)
    start, end = torch.randn(2, 12, generator=generator) * 2
    context = torch.tensor([False, False, *[True] * 9, False])
    words = [(0, 0), (0, 3), (4, 6), (4, 6), (7, 7), (8, 9), (8, 9), (8, 9), (10, 12), (12, 13), (13, 13), (0, 0)]
    places = [place for place in range(12) if context[place]]
    first, last = shares(start.tolist(), places), shares(end.tolist(), places)
    wanted: dict[tuple[int, int], float] = {}
    for a in places:
        for b in places:
            place = (words[a][0], words[b][1])
            if a <= b < a + longest and place[0] < place[1]:
                wanted[place] = max(wanted.get(place, 0.0), first[a] * last[b])
    found, _ = spans.best(start, end, context, words, None, longest, 1000)
    assert {span[1:]: span[0] for span in found} == pytest.approx(wanted)
    assert [span[0] for span in found] == pytest.approx(sorted(wanted.values(), reverse=True))
