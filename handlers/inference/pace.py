"""Work against the clock.

TorchServe ends a worker that has not answered a batch after responseTimeout, and all of the batch's requests get 500.
So what a token takes is measured at loading, on the machine that serves; a request that asks for more than its share of
responseTimeout is refused (413), and what a batch has no time for is not begun (503). Both are told to the request that
they concern, and its neighbours get their answers.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

from ..protocol.problem import Problem

TIMEOUT = 120
"""Seconds of responseTimeout where model-config.yaml says nothing: TorchServe's default_response_timeout."""

REQUEST = 1 / 2
"""The part of responseTimeout that a request may take by itself, by what was measured at loading."""

BEGIN = 1 / 2
"""The part of it after which no further request of a batch is begun."""

END = 3 / 4
"""The part of it in which all has to be done: what would end later is not begun, and a text that is being generated
ends there. The last quarter is for what was reckoned too low, and for sending the answers."""

RUN = 1 / 16
"""The part of it that a run of the model takes, so that the clock is looked at often enough."""

SMALL = 1 / 16
"""Requests that take no more than this part of it together are answered together, whatever each of them takes."""

FLOOR = 64
"""Tokens that any request may have, however slow the machine is."""


_SLOWEST = 8.0
"""How many times slower than at loading a machine can seem: what is compiled is compiled in its first run."""


class Late(Problem):
    """There is no time for a request in its batch."""

    def __init__(self) -> None:
        super().__init__("the server is busy: this input was not begun in time; ask again, or with less", status=503)

    def at(self, place: str) -> Late:
        """The same: it is no input's fault."""
        del place
        return self


class Clock:
    """The time of one batch, from when it came. `now` gives seconds; `timeout` is responseTimeout, or infinity."""

    def __init__(self, timeout: float, now: Callable[[], float] = time.monotonic) -> None:
        self.timeout, self._now, self._came = timeout, now, now()
        self._first: float | None = None
        self._reckoned = 0.0

    @property
    def spent(self) -> float:
        """Seconds since the batch came."""
        return self._now() - self._came

    @property
    def open(self) -> bool:
        """Whether a further request may be begun."""
        return self.spent <= BEGIN * self.timeout

    @property
    def over(self) -> bool:
        """Whether all has to be done by now."""
        return self.spent > END * self.timeout

    @property
    def idle(self) -> bool:
        """Whether nothing has been begun yet."""
        return self._first is None

    def fits(self, seconds: float) -> bool:
        """Whether work that was reckoned to take so long would end in time, if it goes on as slowly as so far: the
        machine may have more to do than at loading."""
        if math.isinf(self.timeout):
            return True
        slowness = 1.0
        if self._first is not None:
            # A few milliseconds more or less say nothing, so a run's time is added to both.
            some = RUN * self.timeout
            slowness = (self._now() - self._first + some) / (self._reckoned + some)
            slowness = min(_SLOWEST, max(1.0, slowness))
        return self.spent + seconds * slowness <= END * self.timeout

    def begins(self, seconds: float) -> bool:
        """Whether there is time for a piece of work, which then counts as begun. For the first piece there always is,
        if it comes in time: what was reckoned may be too high."""
        if not (self.open if self.idle else self.fits(seconds)):
            return False
        if self._first is None:
            self._first = self._now()
        self._reckoned += seconds
        return True


UNHURRIED = Clock(math.inf)
"""For what no server waits for."""


class Pace:
    """What a worker's model takes, and how much of it fits in responseTimeout. `token`: seconds a token, 0 as long as
    it was not measured."""

    def __init__(self, config: dict[str, Any], now: Callable[[], float] = time.monotonic) -> None:
        # None, where nobody waits: `mar run` and the verification of a build.
        timeout = config.get("responseTimeout", TIMEOUT)
        self.timeout = math.inf if timeout is None else float(timeout)
        self.token, self._now = 0.0, now

    def clock(self) -> Clock:
        """The clock of a batch that comes now."""
        return Clock(self.timeout, self._now)

    @property
    def request(self) -> float:
        """Seconds that a request may take by itself."""
        return REQUEST * self.timeout

    @property
    def allowed(self) -> float:
        """Tokens that a request may have; infinite where nothing limits them."""
        return max(FLOOR, self._tokens(REQUEST))

    @property
    def run(self) -> float:
        """Tokens that go through the model at once, at most."""
        return max(1, self._tokens(RUN))

    def _tokens(self, share: float) -> float:
        if not self.token or math.isinf(self.timeout):
            return math.inf
        return int(share * self.timeout / self.token)

    def measure(self, ask: Callable[[int], int], most: int) -> None:
        """Time `ask`, which has the model read about so many tokens and returns how many it was, up to `most`: a long
        text's tokens take more than a short one's. A model like BERT takes a second or so, a smaller one less."""
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
    """Seconds a token, and in all, of a trial. By the clock on the wall: a model on another device lets its thread
    sleep, and helping threads work beside it."""
    began = time.perf_counter()
    tokens = ask(words)
    took = time.perf_counter() - began
    return took / tokens, took


_TRIAL = 1.0
"""Seconds that the text of a trial takes at most."""


def groups(costs: Sequence[float], small: float) -> list[list[int]]:
    """Indices of requests that cost so much, the cheap ones first, in groups that are answered one after the other.

    Together they take less time than one by one, so a group ends only before a request that costs more than twice
    what all of the group do, and more than `small`: of those there is none in most batches.
    """
    found: list[list[int]] = []
    total = 0.0
    for index in sorted(range(len(costs)), key=lambda index: costs[index]):
        if not found or costs[index] > max(2 * total, small - total):
            found.append([])
            total = 0.0
        found[-1].append(index)
        total += costs[index]
    return found
