"""Watches something that may have to be ended."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

EVERY = 0.1  # seconds between two looks

Reason = TypeVar("Reason")


@contextmanager
def watched(look: Callable[[], Reason | None], end: Callable[[], None]) -> Iterator[list[Reason]]:
    """Within the context, a thread calls `look` again and again. With the first reason that it returns, the thread
    calls `end` and stops. The list that the context yields then has the reason."""
    reasons: list[Reason] = []
    done = threading.Event()

    def watch() -> None:
        while not done.wait(EVERY):
            if (reason := look()) is not None:
                reasons.append(reason)
                end()
                return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield reasons
    finally:
        done.set()
        thread.join()
