"""Shares of responseTimeout, by a clock that stands still unless it is told otherwise."""

from __future__ import annotations

import math
import time

import pytest

from handlers.inference.pace import BEGIN, END, FLOOR, REQUEST, UNHURRIED, Clock, Pace, groups


class Now:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def pace(timeout: float | None, token: float, now: Now | None = None) -> Pace:
    made = Pace({"responseTimeout": timeout}, now or Now())
    made.token = token
    return made


@pytest.mark.parametrize(("timeout", "token"), [(120, 0.001), (10, 0.001), (1, 1e-5)])
def test_a_request_may_have_the_tokens_that_take_half_of_the_timeout(timeout: float, token: float) -> None:
    assert pace(timeout, token).allowed == pytest.approx(REQUEST * timeout / token, abs=1)


def test_a_model_whose_thread_sleeps_while_a_device_works_is_timed_by_what_it_takes() -> None:
    made, took = pace(100, 0.0), []

    def ask(words: int) -> int:
        time.sleep(0.002 * words)
        took.append(words)
        return words

    made.measure(ask, 128)
    assert made.token >= 0.002
    assert sum(took) * 0.002 < 2


def test_a_slow_machine_still_answers_a_short_text() -> None:
    assert pace(1, 10.0).allowed == FLOOR
    assert pace(1, 10.0).run == 1


def test_nothing_is_limited_where_nobody_waits_and_torchserves_default_holds_where_nothing_is_said() -> None:
    assert pace(None, 1.0).allowed == math.inf
    assert pace(None, 1.0).clock().begins(1e9)
    assert UNHURRIED.begins(1e9)
    assert Pace({}).timeout == 120


def test_what_would_end_late_is_not_begun() -> None:
    now = Now()
    clock = pace(100, 0.1, now).clock()
    assert clock.begins(40)
    now.seconds += 40
    assert clock.begins(END * 100 - 40)
    assert not clock.begins(END * 100 - 39)
    now.seconds += 100 * END - 40
    assert not clock.over
    now.seconds += 1
    assert clock.over


def test_no_further_request_is_begun_after_half_of_the_time() -> None:
    now = Now()
    clock = Clock(100, now)
    now.seconds += 100 * BEGIN
    assert clock.open
    now.seconds += 1
    assert not clock.open
    assert not clock.begins(0.001)


def test_a_machine_that_is_slower_than_at_loading_is_reckoned_with() -> None:
    now = Now()
    clock = Clock(100, now)
    assert clock.begins(10)
    now.seconds += 30  # three times as long as was reckoned
    assert clock.begins(14)
    now.seconds += 42
    assert not clock.fits(14)


def test_a_moment_more_than_was_reckoned_does_not_make_a_machine_slow() -> None:
    now = Now()
    clock = Clock(100, now)
    assert clock.begins(0.01)
    now.seconds += 1  # a hundred times as long
    assert clock.fits(60)


def test_the_first_work_of_a_batch_is_begun_though_it_seems_too_long() -> None:
    assert Clock(10, Now()).begins(1e6)


def test_cheap_requests_come_first_and_like_ones_together() -> None:
    assert groups([500.0, 1.0, 2.0, 1.0], small=10) == [[1, 3, 2], [0]]
    assert groups([50.0, 40.0, 60.0], small=10) == [[1, 0, 2]]
    assert groups([8.0, 0.01, 0.01], small=10) == [[1, 2, 0]]
    assert groups([3.0, 300.0, 90.0], small=4) == [[0], [2], [1]]
    assert groups([], small=4) == []
