"""What a number was measured on."""

from __future__ import annotations

import datetime
import os
import platform
import re
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

Facts = Mapping[str, str | int | float]


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def facts() -> Facts:
    """CPU, cores, memory in GB, the versions that matter, how busy it is, and the day."""
    try:
        cpu = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    except OSError:
        cpu = None
    return {
        "cpu": cpu[1].strip() if cpu else platform.processor() or platform.machine(),
        "cores": cores(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": platform.system(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "transformers", "torchserve")},
        "load_before": round(os.getloadavg()[0], 2),  # processes at work in the last minute
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
    }


def line(found: Facts) -> str:
    """The facts as one line."""
    return (
        f"{found['cpu']}, {found['cores']} cores, {found['memory_gb']} GB, {found['system']}; "
        f"Python {found['python']}, torch {found['torch']}, transformers {found['transformers']}, "
        f"TorchServe {found['torchserve']}; {found['date']}"
    )
