"""Time limits.

TorchServe ends a worker that does not answer a batch within responseTimeout, and all requests of the batch get 500. So
the time for a token is measured at load time on the serving machine. A request that would take more than its share of
responseTimeout is rejected (413), and requests for which a batch has no time are not started (503). The other requests
of the batch get their answers.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

from ..protocol.problem import Problem

TIMEOUT = 120
"""The default of responseTimeout in seconds: TorchServe's default_response_timeout."""

REQUEST = 1 / 2
"""The share of responseTimeout that a request alone may take, by the measurement at load time."""

BEGIN = 1 / 2
"""The share after which no further request of a batch is started."""

END = 3 / 4
"""The share in which all work has to end: work that would end later is not started, and generation stops there. The
last quarter is a reserve for low estimates, and for sending the answers."""

RUN = 1 / 16
"""The share that a run of the model may take, so that the clock is checked often enough."""

SMALL = 1 / 16
"""Requests that together take no more than this share are answered together, whatever each of them takes."""

FLOOR = 64
"""Tokens that a request may always have, however slow the machine is."""


_SLOWEST = 8.0
"""The largest slowdown to assume, relative to load time: a first run may include a compilation."""


class Late(Problem):
    """There is no time left for a request in its batch."""

    def __init__(self) -> None:
        super().__init__(
            "the server is busy: this input was not started in time; try again, or with less text", status=503
        )

    def at(self, place: str) -> Late:
        """The same problem: no input caused it."""
        del place
        return self


class Clock:
    """The time of one batch since it arrived. `now` returns seconds; `timeout` is responseTimeout, or infinity."""

    def __init__(self, timeout: float, now: Callable[[], float] = time.monotonic) -> None:
        self.timeout, self._now, self._start = timeout, now, now()
        self._first: float | None = None
        self._estimated = 0.0

    @property
    def spent(self) -> float:
        """Seconds since the batch arrived."""
        return self._now() - self._start

    @property
    def open(self) -> bool:
        """Whether a further request may be started."""
        return self.spent <= BEGIN * self.timeout

    @property
    def over(self) -> bool:
        """Whether all work has to stop."""
        return self.spent > END * self.timeout

    @property
    def idle(self) -> bool:
        """Whether no work has been started yet."""
        return self._first is None

    def fits(self, seconds: float) -> bool:
        """Whether work of so many estimated seconds would end in time, with the slowdown so far: the machine may be
        busier than at load time."""
        if math.isinf(self.timeout):
            return True
        slowness = 1.0
        if self._first is not None:
            # A few milliseconds are not significant, so the time of a run is added to both.
            some = RUN * self.timeout
            slowness = (self._now() - self._first + some) / (self._estimated + some)
            slowness = min(_SLOWEST, max(1.0, slowness))
        return self.spent + seconds * slowness <= END * self.timeout

    def begins(self, seconds: float) -> bool:
        """Whether there is time for a piece of work, which then counts as started. The first piece is always allowed if
        it is not too late to start: the estimate may be too high."""
        if not (self.open if self.idle else self.fits(seconds)):
            return False
        if self._first is None:
            self._first = self._now()
        self._estimated += seconds
        return True


UNHURRIED = Clock(math.inf)
"""The clock of work without a time limit."""


class Pace:
    """The speed of a worker's model, and how much work fits into responseTimeout. `token` is in seconds, 0 until it is
    measured."""

    def __init__(self, config: dict[str, Any], now: Callable[[], float] = time.monotonic) -> None:
        # None: no limit, for `mar run` and the verification of a build.
        timeout = config.get("responseTimeout", TIMEOUT)
        self.timeout = math.inf if timeout is None else float(timeout)
        self.token, self._now = 0.0, now

    def clock(self) -> Clock:
        """The clock of a batch that arrives now."""
        return Clock(self.timeout, self._now)

    @property
    def request(self) -> float:
        """Seconds that a request alone may take."""
        return REQUEST * self.timeout

    @property
    def allowed(self) -> float:
        """Tokens that a request may have; infinite without a limit."""
        return max(FLOOR, self._tokens(REQUEST))

    @property
    def run(self) -> float:
        """The most tokens that go through the model at once."""
        return max(1, self._tokens(RUN))

    def _tokens(self, share: float) -> float:
        if not self.token or math.isinf(self.timeout):
            return math.inf
        return int(share * self.timeout / self.token)

    def measure(self, ask: Callable[[int], int], most: int) -> None:
        """Measure `token` by `ask`, which runs the model on about so many tokens and returns the exact number, up to
        `most`: tokens of long texts take longer. Measuring BERT takes about a second, smaller models less."""
        words = min(16, most)
        ask(words)  # warms up
        best, took = _timed(ask, words)
        longer = max(words, min(most, int(words * _TRIAL / max(took, 1e-9))))
        best, spent = math.inf if longer > words else best, 0.0
        while spent < _TRIAL / 4:
            token, took = _timed(ask, longer)
            best, spent = min(best, token), spent + max(took, _TRIAL / 16)
        self.token = best


def _timed(ask: Callable[[int], int], words: int) -> tuple[float, float]:
    """Seconds for a token, and in total, of a trial. In wall-clock time: a model on another device lets its thread
    sleep, and other threads work in parallel."""
    began = time.perf_counter()
    tokens = ask(words)
    took = time.perf_counter() - began
    return took / tokens, took


_TRIAL = 1.0
"""The longest time in seconds for the text of a trial."""


def groups(costs: Sequence[float], small: float) -> list[list[int]]:
    """Indices of requests by their `costs`, cheap ones first, in groups that are answered one after the other.

    Requests take less time together than one by one, so a new group starts only at a request that costs more than twice
    the group so far, and with which the group would cost more than `small`. Most batches have one group.
    """
    result: list[list[int]] = []
    total = 0.0
    for index in sorted(range(len(costs)), key=lambda index: costs[index]):
        if not result or costs[index] > max(2 * total, small - total):
            result.append([])
            total = 0.0
        result[-1].append(index)
        total += costs[index]
    return result
