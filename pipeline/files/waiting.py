"""Waiting for a lock (flock) that another process has, and saying whose it is."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

PATIENCE = 2.0
"""Seconds without a word."""
_POLL = 0.1


def acquire(lock: int, how: int, who: str, tell: Callable[[str], None]) -> None:
    """Lock the descriptor: `how` is LOCK_EX or LOCK_SH. After PATIENCE, `tell` gets a line on the process that has the
    lock, and another one if that changes, or is stopped. `who` says in words what has the lock. Raises OSError if the
    file system has no locks."""
    told, next_look = "", time.monotonic() + PATIENCE
    while True:
        try:
            fcntl.flock(lock, how | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            pass
        if time.monotonic() >= next_look:
            next_look += PATIENCE
            text = f"Waiting for {who}{_holder(lock)}."
            if text != told:
                told = text
                tell(text)
        time.sleep(_POLL)


def _holder(lock: int) -> str:
    """The process that has the lock, in words; "" if it is unknown."""
    import psutil

    for pid in _holders(lock):
        with suppress(psutil.Error):
            process = psutil.Process(pid)
            since = time.strftime("%H:%M:%S", time.localtime(process.create_time()))
            user = "" if process.uids().real == os.geteuid() else f" of {process.username()}"
            stopped = process.status() == psutil.STATUS_STOPPED
            stop = f". It is stopped: `kill -CONT {pid}` continues it, `kill -KILL {pid}` ends it" if stopped else ""
            return f": process {pid}{user}, since {since}{stop}"
    return ""


def _holders(lock: int) -> list[int]:
    """The processes that have the file locked, by /proc/locks (Linux; proc_locks(5)); none where that does not say."""
    status = os.fstat(lock)
    place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    try:
        rows = [line.split() for line in Path("/proc/locks").read_text(encoding="ascii").splitlines()]
    except OSError:
        return []
    # A row of a process that waits has an arrow: "1: -> FLOCK ...".
    return [int(row[4]) for row in rows if row[1:2] == ["FLOCK"] and row[5:6] == [place] and int(row[4]) > 0]
