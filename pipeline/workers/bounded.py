"""Worker side: a short time and little memory for what a tokenizer's files decide, such as patterns and templates."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def bounded(seconds: float, memory: int | None = None) -> Iterator[None]:
    """Within the context, this process may take `memory` bytes more than it has: a larger object raises MemoryError,
    or ends the process (SIGABRT). After `seconds` of computing (a busy machine counts less) it is ended by SIGVTALRM,
    even in native code; the parent says why. Only for work without threads, since those would meet the limit too."""
    before = resource.getrlimit(resource.RLIMIT_DATA)
    if memory is not None:
        _limit(memory, *before)
    signal.signal(signal.SIGVTALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        resource.setrlimit(resource.RLIMIT_DATA, before)


def _limit(memory: int, soft: int, hard: int) -> None:
    with suppress(OSError, ValueError):  # not on Linux
        # proc_pid_statm(5): the sixth number is the pages of data and stack.
        pages = int(Path("/proc/self/statm").read_text().split()[5])
        limit = pages * os.sysconf("SC_PAGE_SIZE") + memory
        if soft == resource.RLIM_INFINITY or limit < soft:
            resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
