"""Which answers of an archive are compared with the original's, and what the error says of the cause."""

from __future__ import annotations

from typing import Any

import pytest

from mar_pipeline.answers.agreement import compared
from mar_pipeline.errors import MismatchError

EXPECTED = [{"score": 0.1}, {"score": 0.5}, {"score": 0.9}]


def scores(*values: float) -> list[dict[str, float]]:
    return [{"score": value} for value in values]


def got(**changes: Any) -> dict[str, Any]:
    beside = [[[0, 1], scores(0.1, 0.5)], [[0, 2], scores(0.1, 0.9)]]
    return {"single": EXPECTED, "again": EXPECTED, "batched": EXPECTED, "beside": beside, **changes}


def error(changes: dict[str, Any], second: list[Any] = EXPECTED) -> MismatchError:
    with pytest.raises(MismatchError) as caught:
        compared("own", "OwnModel", EXPECTED, got(**changes), 0.01, lambda: second)
    return caught.value


def test_the_report_counts_what_was_compared_and_has_the_largest_difference_of_all() -> None:
    beside = [[[0, 1], scores(0.1, 0.5)], [[0, 2], scores(0.105, 0.9)]]
    report = compared("own", "OwnModel", EXPECTED, got(beside=beside), 0.01, list)
    assert report["compared"] == {"samples": 3, "alone": 6, "batches": 3}
    assert report["largest_difference"] == pytest.approx(0.005)


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"batched": scores(0.1, 0.5, 0.8)}, "sample 3 in a batch"),
        ({"beside": [[[0, 2], scores(0.3, 0.9)]]}, "sample 1 beside 3"),
        ({"beside": [[[0, 2], scores(0.1, 0.7)]]}, "sample 3 beside 1"),
    ],
)
def test_answers_that_differ_only_beside_others_depend_on_them(changes: dict[str, Any], where: str) -> None:
    refused = error(changes)
    assert "in batches: 1 differences" in refused.what
    assert "the answers of OwnModel depend on the other texts of a batch" in refused.what
    assert where in refused.why


def test_an_answer_that_differs_when_it_is_asked_again_depends_on_what_was_asked_before() -> None:
    refused = error({"again": scores(0.1, 0.2, 0.9)})
    assert "The answers of OwnModel depend on what was asked before." in refused.what
    assert "sample 2" in refused.why


def test_an_original_that_contradicts_itself_is_named_as_the_cause() -> None:
    refused = error({"single": scores(0.1, 0.4, 0.9)}, second=scores(0.1, 0.6, 0.9))
    assert "the original model itself (OwnModel) answers the same samples differently" in refused.what
    assert "hash_seed" in refused.fix


def test_an_answer_that_differs_in_every_way_is_shown_without_a_guess() -> None:
    other = scores(0.1, 0.4, 0.9)
    refused = error({"single": other, "again": other, "batched": other})
    assert refused.what == "own does not answer like the original: 3 differences (tolerance 0.01)."
    assert "sample 2 asked again" in refused.why
    assert not refused.fix
