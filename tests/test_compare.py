"""What counts as the same answer."""

from __future__ import annotations

from typing import Any

import pytest

from mar_pipeline.answers.compare import differences

SAME: list[tuple[Any, Any]] = [
    ({"label": "a", "score": 0.5}, {"label": "a", "score": 0.50005}),
    ([{"start": 1}], [{"start": 1}]),
    ({"generated_text": "x"}, {"generated_text": "x", "tokens": 3}),
    ([], []),
]
OTHER: list[tuple[Any, Any]] = [
    ({"label": "a", "score": 0.5}, {"label": "b", "score": 0.5}),
    ({"score": 0.5}, {"score": 0.5002}),
    ({"score": 0.5}, {"score": float("nan")}),
    ({"score": float("nan")}, {"score": float("nan")}),
    ({"score": 0.5}, {}),
    ({"score": 0.5}, {"score": "0.5"}),
    ({"start": 1}, {"start": 2}),
    ({"start": 1}, {"start": True}),
    ([1], [1, 2]),
    ([1, 2], [1]),
    ({"a": 1}, {"error": {"message": "no"}}),
    ({"a": 1}, [1]),
]


@pytest.mark.parametrize(("wanted", "got"), SAME)
def test_scores_may_differ_within_the_tolerance_and_a_server_may_tell_more(wanted: Any, got: Any) -> None:
    assert differences("x", wanted, got, 1e-4) == []


@pytest.mark.parametrize(("wanted", "got"), OTHER)
def test_anything_else_is_a_difference(wanted: Any, got: Any) -> None:
    assert differences("x", wanted, got, 1e-4)


def test_a_difference_says_where_it_is() -> None:
    (found,) = differences("sample 2", [{"score": 1.0}, {"score": 0.5}], [{"score": 1.0}, {"score": 0.7}], 1e-4)
    assert (found.where, found.wanted, found.got) == ("sample 2[1].score", 0.5, 0.7)
