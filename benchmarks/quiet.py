"""Whether other processes were at work while something was measured (Linux).

Two models' threads on the same cores cost each other far more than half: each waits for the slower of its own. A round
in which anything else ran says nothing, so it is measured again.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock, Timeout

from .load import Sample

LIMIT = 0.1
"""Cores' worth of other processes' work in a round that counts as undisturbed."""


def undisturbed(measure: Callable[[], Sample], patience: int) -> Sample:
    """The first of `measure`'s samples that nothing disturbed, or the least disturbed of `patience` more than one."""
    samples = []
    for attempt in range(patience + 1):
        if attempt:
            time.sleep(1)
        before, start = others(), time.perf_counter()
        samples.append(measure())
        samples[-1].others = max(0.0, (others() - before) / (time.perf_counter() - start))
        if samples[-1].others <= LIMIT:
            break
    return min(samples, key=lambda sample: sample.others)


def one_at_a_time(report: Callable[[str], None]) -> FileLock:
    """A lock that one benchmark a machine holds; who has to wait for it is told so. A context manager."""
    lock = FileLock(Path(tempfile.gettempdir()) / "mar-bench.lock", mode=0o666)
    try:
        lock.acquire(blocking=False)
        lock.release()
    except Timeout:
        report("another benchmark is running on this machine: waiting for its end")
    return lock


def others() -> float:
    """Seconds of processor time that all processes took that are neither this one nor come from it."""
    parents: dict[int, int] = {}
    ticks: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            # proc(5): behind the name, which may hold anything, come state and parent; utime, stime and those of
            # children that have ended, whose time is not lost that way, are fields 14 to 17.
            fields = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        pid = int(stat.parent.name)
        parents[pid], ticks[pid] = int(fields[1]), sum(map(int, fields[11:15]))
    return sum(ticks[pid] for pid in parents if not _ours(pid, parents)) / os.sysconf("SC_CLK_TCK")


def _ours(pid: int, parents: dict[int, int]) -> bool:
    while pid > 1:
        if pid == os.getpid():
            return True
        pid = parents.get(pid, 0)
    return False
