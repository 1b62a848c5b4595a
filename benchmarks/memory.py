"""What a server's worker processes take: memory, and the time until they are READY (Linux)."""

from __future__ import annotations

import datetime
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

from mar_pipeline.serving.server import Server

_LOADED = re.compile(r"^(\S+) .*\bW-\d+-(\S+?)_[\w.]+ State change WORKER_STARTED -> WORKER_MODEL_LOADED", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Of a process, in MB: `rss` is all that is resident, `private` what no other process shares, `pss` shared pages
    divided by their sharers, `peak` the most that was resident."""

    rss: float
    peak: float
    pss: float
    private: float


def memory(pid: int) -> Memory:
    """The memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8")
    lines = re.findall(r"^(\w+):\s+(\d+) kB", text + status, re.MULTILINE)
    found = {name: int(kb) / 1024 for name, kb in lines}
    private = found["Private_Clean"] + found["Private_Dirty"]
    return Memory(rss=found["Rss"], peak=found["VmHWM"], pss=found["Pss"], private=private)


def workers(server: Server, name: str) -> list[int]:
    """The process ids of the READY workers of a served model."""
    # Spelt so because TorchServe misreads a management call with "/token" in it: see Server.
    answer = server.client.manage("GET", f"/models/%{ord(name[0]):02x}{name[1:]}")
    answer.raise_for_status()
    return [int(worker["pid"]) for worker in answer.json()[0]["workers"] if worker["status"] == "READY"]


def started(pid: int) -> float:
    """When a process began, in seconds since 1970."""
    # Field 22 of proc(5)'s stat, in clock ticks since the boot; the name before it may hold anything.
    ticks = int(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19])
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + ticks / os.sysconf("SC_CLK_TCK")


def loaded(server: Server, name: str) -> list[float]:
    """When the workers of a model became READY, in seconds since 1970, from TorchServe's log."""
    log = (server.logs.folder / "ts_log.log").read_text(encoding="utf-8", errors="replace")
    return [_time(stamp) for stamp, model in _LOADED.findall(log) if model == name]


def _time(stamp: str) -> float:
    return datetime.datetime.strptime(stamp, "%Y-%m-%dT%H:%M:%S,%f").astimezone().timestamp()
