"""Several things at once, in threads that nobody has to wait for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

AT_ONCE = 8
"""As the Hub's own client has it."""


def each(items: Iterable[Item], work: Callable[[Item, Callable[[], bool]], Result]) -> list[Result]:
    """The results of `work` on every item, in any order. The first error is raised, and Ctrl-C at once: `work` is told
    by its second argument whether to stop, and a thread that hangs in the network holds nothing up."""
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
                done.put((work(item, stop.is_set), None))
            except BaseException as error:
                done.put((None, error))
                return

    for _ in range(min(AT_ONCE, number)):
        Thread(target=loop, daemon=True).start()
    found: list[Result] = []
    try:
        while len(found) < number:
            result, error = done.get()
            if error is not None:
                raise error
            found.append(result)  # type: ignore[arg-type]
    finally:
        stop.set()
    return found
