"""Several things at once, in threads that nobody has to wait for."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

GRACE = 1.0
"""Seconds that the others get to clean up after an error: most meet the same one."""
AT_ONCE = 8
"""As the Hub's own client has it."""


def each(items: Iterable[Item], work: Callable[[Item], Result]) -> list[Result]:
    """The results of `work` on every item, in any order. The first error is raised, and Ctrl-C, at once: a thread that
    hangs in the network holds nothing up, and ends with the process."""
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
    found: list[Result] = []
    try:
        while len(found) < number:
            result, error = done.get()
            if error is not None:
                stop.set()
                _settle(threads)
                raise error
            found.append(result)  # type: ignore[arg-type]
    finally:
        stop.set()
    return found


def _settle(threads: Iterable[Thread]) -> None:
    until = time.monotonic() + GRACE
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
