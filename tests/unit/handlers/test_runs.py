"""Batches in runs of like length, against all ways to split one."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from handlers.inference.batches import NESTED, OVERHEAD, RUN_TOKENS, split, together


def cost(runs: list[list[int]], padding: float) -> float:
    """Tokens that runs of these lengths take, OVERHEAD and padding counted."""
    tokens = sum(map(sum, runs))
    return tokens + sum(OVERHEAD + padding * (len(run) * max(run) - sum(run)) for run in runs)


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


@pytest.mark.parametrize("padding", [1, NESTED, 0.3])
@pytest.mark.parametrize("seed", range(8))
def test_no_way_to_split_a_batch_takes_fewer_tokens(seed: int, padding: float) -> None:
    most = 200 if padding == 1 else 1000
    lengths = [random.Random(seed * 100 + number).randint(1, most) for number in range(7)]
    runs = [[lengths[index] for index in run] for run in split(lengths, padding)]
    assert cost(runs, padding) == pytest.approx(min(cost(way, padding) for way in every_way(lengths)))


@pytest.mark.parametrize("padding", [1, NESTED])
def test_runs_hold_every_input_once_and_keep_to_the_limit(padding: float) -> None:
    lengths = [5, 500, 7, 64, 64, 3000, 9, 9000, 12] * 40
    runs = split(lengths, padding)
    assert sorted(index for run in runs for index in run) == list(range(len(lengths)))
    for run in runs:
        assert len(run) == 1 or len(run) * max(lengths[index] for index in run) <= RUN_TOKENS


def test_texts_of_like_length_stay_together_and_long_ones_leave() -> None:
    assert [sorted(run) for run in split([12, 14, 13, 400, 15])] == [[0, 1, 2, 4], [3]]
    assert split([12, 400, 13], NESTED) == [[0, 2, 1]]
    # As tokens of padding 255 texts would be eight times what the text is that they wait for.
    assert split([6] * 255 + [512], NESTED)[-1] == [255]
    assert split([]) == []


@pytest.mark.parametrize("seed", range(20))
def test_rows_are_generated_together_while_the_longest_prompt_has_room_for_the_most_new_tokens(seed: int) -> None:
    draw = random.Random(seed)
    rows = [(prompt := draw.randint(1, 63), draw.randint(1, 64 - prompt)) for _ in range(40)]
    runs = together(rows, 64)
    assert sorted(index for run in runs for index in run) == list(range(40))
    for run in runs:
        assert max(rows[index][0] for index in run) + max(rows[index][1] for index in run) <= 64
    assert len(runs) < 20


def test_rows_that_fit_stay_in_one_run_and_runs_keep_to_the_limit() -> None:
    assert together([(10, 20), (40, 20), (1, 20)], 64) == [[2, 0, 1]]
    assert [sorted(run) for run in together([(50, 2), (1, 63)], 64)] == [[1], [0]]
    assert {len(run) for run in together([(500, 12)] * 64, 1024)} == {RUN_TOKENS // 512}
    assert together([], 64) == []
