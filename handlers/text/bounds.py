"""Bounds for chat templates: a template comes with the model, and can loop forever or ask for any amount of memory."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

try:
    import resource
except ImportError:  # not on Windows
    resource = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Iterator

SECONDS = 5
"""The most time of the processor for a conversation, however busy the machine is. The usual templates take
milliseconds."""

MEMORY = 256 << 20
"""The most bytes of memory, beside what the process has already."""

_BITS = 10_000
"""The largest whole number that a product may be: others can take minutes in one instruction."""


class Excess(Exception):
    """A template takes more time or memory than it may."""


@contextmanager
def bounded() -> Iterator[None]:
    """Within the context, Python code raises Excess after SECONDS, and MemoryError if it asks for more than MEMORY.
    Other threads must not work meanwhile. Outside of the main thread there is no limit of time, and only Linux limits
    the memory."""
    with _little_memory(), _little_time():
        yield


@contextmanager
def _little_time() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(*_: Any) -> None:
        raise Excess(f"it takes more than {SECONDS} s")

    before = signal.signal(signal.SIGVTALRM, end)
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


@contextmanager
def _little_memory() -> Iterator[None]:
    if resource is None:
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    with suppress(OSError, ValueError, IndexError):
        # proc_pid_statm(5): the sixth number is the pages of data and stack.
        pages = int(Path("/proc/self/statm").read_text().split()[5])
        limit = pages * os.sysconf("SC_PAGE_SIZE") + MEMORY
        if soft == resource.RLIM_INFINITY or limit < soft:
            resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def refuse_large(operator: str, left: Any, right: Any) -> None:
    """Raises Excess for a product or a power of whole numbers that is too large."""
    if not (isinstance(left, int) and isinstance(right, int)):
        return
    bits = left.bit_length() * abs(right) if operator == "**" else left.bit_length() + right.bit_length()
    if bits > _BITS:
        raise Excess("it computes a number that is too large")
