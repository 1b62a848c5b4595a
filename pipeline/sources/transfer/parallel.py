"""Runs work in daemon threads."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

GRACE = 1.0
"""Seconds that the other threads get to end after an error: most have the same one."""
AT_ONCE = 8
"""Threads at once, as in the Hub's own client."""


def each(items: Iterable[Item], work: Callable[[Item], Result]) -> list[Result]:
    """The results of `work` on every item, in any order. Raises the first error, or KeyboardInterrupt, at once: threads
    that still wait for the network end with the process."""
    waiting: SimpleQueue[Item] = SimpleQueue()
    number = 0
    for item in items:
        waiting.put(item)
        number += 1
    done: SimpleQueue[tuple[Result | None, BaseException | None]] = SimpleQueue()
    stop = Event()

    def loop() -> None:
        while not stop.is_set():
            try:
                item = waiting.get_nowait()
            except Empty:
                return
            try:
                done.put((work(item), None))
            except BaseException as error:
                done.put((None, error))
                return

    threads = [Thread(target=loop, daemon=True) for _ in range(min(AT_ONCE, number))]
    for thread in threads:
        thread.start()
    results: list[Result] = []
    try:
        while len(results) < number:
            result, error = done.get()
            if error is not None:
                stop.set()
                _join(threads)
                raise error
            results.append(result)  # type: ignore[arg-type]
    finally:
        stop.set()
    return results


def _join(threads: Iterable[Thread]) -> None:
    """Wait for the threads to end, GRACE seconds at most."""
    until = time.monotonic() + GRACE
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
