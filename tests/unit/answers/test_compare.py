"""What counts as the same answer."""

from __future__ import annotations

from typing import Any

import pytest

from mar_pipeline.answers.compare import Difference, differences, largest, table

INFINITY, NAN = float("inf"), float("nan")

SAME: list[tuple[Any, Any]] = [
    ({"label": "a", "score": 0.5}, {"score": 0.50009, "label": "a"}),
    ({"score": 0.5}, {"score": 0.49991}),
    ({"score": 1.0}, {"score": 1}),
    ({"score": INFINITY}, {"score": INFINITY}),
    ([{"start": 1}], [{"start": 1}]),
    (True, True),
    (None, None),
    ("a", "a"),
    ([], []),
    ({}, {}),
]
OTHER: list[tuple[Any, Any]] = [
    ({"label": "a", "score": 0.5}, {"label": "b", "score": 0.5}),
    ({"score": 0.5}, {"score": 0.5002}),
    ({"score": 0.5}, {"score": NAN}),
    ({"score": NAN}, {"score": NAN}),
    ({"score": INFINITY}, {"score": -INFINITY}),
    ({"score": INFINITY}, {"score": 1e300}),
    ({"score": 0.5}, {"score": INFINITY}),
    ({"score": 0.5}, {"score": "0.5"}),
    ({"score": 0.0}, {"score": None}),
    ({"score": 1.0}, {"score": True}),
    ({"score": 0.5}, {}),
    ({}, {"score": 0.5}),
    ({"a": 1}, {"a": 1, "b": None}),
    ({"start": 1}, {"start": 2}),
    ({"start": 1}, {"start": 1.0}),
    ({"start": 1}, {"start": True}),
    ({"found": False}, {"found": 0}),
    ([1], [1, 2]),
    ([1, 2], [1]),
    ([], [None]),
    ({"a": 1}, {"error": {"message": "no"}}),
    ({"a": 1}, [1]),
    ("a", ["a"]),
    ("a", "b"),
]


@pytest.mark.parametrize(("wanted", "got"), SAME)
def test_scores_may_differ_within_the_tolerance(wanted: Any, got: Any) -> None:
    assert differences("", wanted, got, 1e-4) == []


@pytest.mark.parametrize(("wanted", "got"), OTHER)
def test_anything_else_is_a_difference(wanted: Any, got: Any) -> None:
    assert differences("", wanted, got, 1e-4)


def test_a_difference_says_where_it_is() -> None:
    (found,) = differences("sample 2", [{"score": 1.0}, {"score": 0.5}], [{"score": 1.0}, {"score": 0.7}], 1e-4)
    assert (found.where, found.wanted, found.got) == ("sample 2 [1].score", 0.5, 0.7)
    (found,) = differences("sample 2", {"a": 1}, "an error page", 1e-4)
    assert found == Difference("sample 2", {"a": 1}, "an error page")


def test_the_largest_difference_is_one_of_scores() -> None:
    wanted = [{"score": 0.5, "start": 3}, {"score": INFINITY}, [1.0]]
    assert largest(wanted, [{"score": 0.5, "start": 3}, {"score": INFINITY}, [1]]) == 0.0
    assert largest(wanted, [{"score": 0.25, "start": 3}, {"score": INFINITY}, [1.125]]) == 0.25


def test_the_table_shows_the_first_few_and_counts_the_rest() -> None:
    found = differences("sample 1", {str(number): "1" for number in range(14)}, {"0": 1, "x": "e" * 90}, 0.1)
    title, first, second, *_, last = table(found, "expected", "TorchServe").splitlines()
    assert title.split() == ["where", "expected", "TorchServe"]
    assert first.split() == ["sample", "1", ".0", '"1"', "1"]
    assert second.split() == ["sample", "1", ".1", '"1"', "(none)"]
    assert last == "and 3 more"
    assert "e" * 20 + "..." in table(found[-1:], "expected", "TorchServe")
