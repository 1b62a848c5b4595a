"""Random checkpoints build and answer like transformers, or are refused with a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import tiny

from . import trial
from .recipes import LAYOUTS, recipe


@pytest.mark.slow
@pytest.mark.parametrize("number", range(30))
def test_a_random_checkpoint_answers_like_transformers_or_is_refused(tmp_path: Path, number: int) -> None:
    outcome, why = trial.attempt(recipe(number), tmp_path)
    assert outcome != trial.WRONG, why
    if outcome in (trial.REFUSED, trial.DIFFERS):
        assert len(why.splitlines()) >= 2, "a refusal has what, and why or what to do"
        assert "Traceback" not in why


def test_numbers_draw_the_same_recipe_each_time_and_all_kinds_of_them() -> None:
    drawn = [recipe(number) for number in range(200)]
    assert drawn == [recipe(number) for number in range(200)]
    assert {one.task for one in drawn} == set(tiny.AUTO)
    assert len({one.family for one in drawn}) > 15
    assert {one.layout for one in drawn} == set(LAYOUTS)
