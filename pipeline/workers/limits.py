"""The time and memory that a worker may take. A checkpoint or an archive can ask for any amount of both.

A thread of `mar` watches the worker's process from outside: calls into native code cannot be interrupted from within.
Memory is the worker's own, without the files that it maps (Linux only). A limit that the system enforces does not do:
RLIMIT_AS counts the address space that CUDA reserves, and RLIMIT_DATA files that torch maps as private.
"""

from __future__ import annotations

import os
import time
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from ..errors import StageError
from ..host import watching
from ..text import size as bytes_of

_TIME, _TIME_PER_BYTE = 1800.0, 120 / 1e9
"""Half an hour, and two minutes for each GB of the model: some twenty times what building takes on two cores."""

_MEMORY, _MEMORY_PER_BYTE = 16 * 10**9, 16
"""Weights of four bits that are unpacked to float32 take eight times their size, and twice that while they are
copied."""

_SHARE = 0.9
"""The share of the machine's memory that a worker may take at most."""


class Process(Protocol):
    """A worker that is being started (`pid` is None) or runs."""

    pid: int | None

    def kill(self) -> None:
        """Kill it with all its children."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How long a worker may run (seconds), and the memory that it may take (bytes); None: as long, or as much, as it
    likes. `advice` says what to do if it is too short."""

    seconds: float | None = None
    memory: int | None = None
    advice: str = ""

    @classmethod
    def of(cls, size: int, seconds: float | None = None, advice: str = "") -> Limits:
        """The limits for a model of `size` bytes; `seconds` replaces the default time, and 0 is no limit."""
        if seconds is None:
            seconds = _TIME + _TIME_PER_BYTE * size
        memory = min(_MEMORY + _MEMORY_PER_BYTE * size, int(_SHARE * machine_memory()))
        return cls(seconds=seconds or None, memory=memory, advice=advice)

    def after(self, spent: float) -> Limits:
        """The limits when `spent` seconds of the time have passed."""
        return self if self.seconds is None else replace(self, seconds=max(0.0, self.seconds - spent))


def machine_memory() -> int:
    """The machine's memory in bytes, or the container's limit if that is less."""
    whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with suppress(OSError, ValueError):  # no cgroup, or "max"
        whole = min(whole, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return whole


def watched(worker: Process, limits: Limits, what: list[str]) -> AbstractContextManager[list[StageError]]:
    """Within the context, the worker is killed when it exceeds a limit; the list then has the error. `what[0]` is what
    it does at the moment."""
    if limits.seconds is None and limits.memory is None:
        return nullcontext([])
    begin = time.monotonic()
    return watching.watched(lambda: _excess(worker.pid, time.monotonic() - begin, limits, what[0]), worker.kill)


def _excess(pid: int | None, spent: float, limits: Limits, what: str) -> StageError | None:
    if pid is None:
        return None
    if limits.seconds is not None and spent > limits.seconds:
        return StageError(
            f"The worker was ended after {spent:.0f} s while {what}.",
            "A number, a pattern or a template in the model's files can make that endless; or the machine is slow.",
            limits.advice,
        )
    if limits.memory is not None and (used := _memory(pid)) > limits.memory:
        return StageError(
            f"The worker was ended with {bytes_of(used)} of memory while {what}.",
            f"It may take {bytes_of(limits.memory)}, by the size of the model and the machine's memory; a number in "
            "the model's files can ask for any amount.",
            "If the model's files are right, build on a machine with more memory.",
        )
    return None


def _memory(pid: int) -> int:
    """The memory of a process in bytes, without mapped files; 0 if it is unknown. (proc_pid_statm(5))"""
    try:
        fields = Path(f"/proc/{pid}/statm").read_text().split()
    except OSError:
        return 0
    return (int(fields[1]) - int(fields[2])) * os.sysconf("SC_PAGE_SIZE")
