"""Batches in runs of like length, against all ways to split one."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from handlers.runs import OVERHEAD, RUN_TOKENS, fill, split


def cost(runs: list[list[int]]) -> int:
    """Tokens that runs of these lengths take, padding and OVERHEAD counted."""
    return sum(OVERHEAD + len(run) * max(run) for run in runs)


def every_way(lengths: list[int]) -> Iterator[list[list[int]]]:
    """Every partition of some lengths, whatever their order."""
    if not lengths:
        yield []
        return
    first, *others = lengths
    for rest in every_way(others):
        yield [[first], *rest]
        for index in range(len(rest)):
            yield [*rest[:index], [first, *rest[index]], *rest[index + 1 :]]


@pytest.mark.parametrize("seed", range(12))
def test_no_way_to_split_a_batch_takes_fewer_tokens(seed: int) -> None:
    lengths = [random.Random(seed * 100 + number).randint(1, 200) for number in range(7)]
    runs = [[lengths[index] for index in run] for run in split(lengths)]
    assert cost(runs) == min(map(cost, every_way(lengths)))


@pytest.mark.parametrize("way", [split, fill])
def test_runs_hold_every_input_once_and_keep_to_the_limit(way: object) -> None:
    lengths = [5, 500, 7, 64, 64, 3000, 9, 9000, 12] * 40
    runs = way(lengths)  # type: ignore[operator]
    assert sorted(index for run in runs for index in run) == list(range(len(lengths)))
    for run in runs:
        tokens = [lengths[index] for index in run]
        taken = len(run) * max(tokens) if way is split else sum(tokens)
        assert len(run) == 1 or taken <= RUN_TOKENS


def test_texts_of_like_length_stay_together_and_long_ones_leave() -> None:
    assert [sorted(run) for run in split([12, 14, 13, 400, 15])] == [[0, 1, 2, 4], [3]]
    assert fill([12, 400, 13]) == [[0, 2, 1]]
    assert split([]) == fill([]) == []
