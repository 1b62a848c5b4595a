"""Processes of a server: what they inherit, and how all of them end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType

from . import environment as variables


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The server's environment: what `environment` lets pass, no variable that would replace a setting, and nothing on
    PYTHONPATH that would be taken for the archive's own modules."""
    env = {
        name: value
        for name, value in variables.environment().items()
        if name not in ("LOG_LOCATION", "METRICS_LOCATION") and not name.startswith("TS_")
    }
    if path := variables.search_path(env.pop("PYTHONPATH", ""), "handlers", "ts", *variables.LIBRARIES):
        env["PYTHONPATH"] = path
    return env | dict(extra or {})


def guard(group: int, folder: Path) -> subprocess.Popen[bytes]:
    """A shell that outlives us by a moment: should we be killed with no chance to clean up, its input ends, and it
    kills the server's process group and removes its folder."""
    # `kill -s`, since the short form takes no group in every shell.
    script = 'read -r _; kill -s KILL -- "-$0"; sleep 1; rm -rf -- "$1"'
    return subprocess.Popen(
        ["/bin/sh", "-c", script, str(group), str(folder)],
        env=variables.environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def end_group(process: subprocess.Popen[bytes], grace: float) -> None:
    """End a process that leads its own group, and everything in the group; `grace` seconds lie between the polite
    way and the other."""
    if grace and process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(grace)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    # The workers are no children of ours: they are gone a moment after the signal.
    for _ in range(200):
        if not group_members(process.pid):
            return
        time.sleep(0.01)


def group_members(group: int) -> list[int]:
    """The living processes of a process group."""
    import psutil

    dead = (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    found = []
    for pid in psutil.pids():
        with contextlib.suppress(OSError, psutil.Error):
            if os.getpgid(pid) == group and psutil.Process(pid).status() not in dead:
                found.append(pid)
    return found


@contextlib.contextmanager
def ending_on_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end us like Ctrl-C does, so that context managers clean up. Whoever set a handler of
    their own, or runs us outside the main thread, keeps things as they are."""

    def end(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    replaced = []
    for number in (signal.SIGTERM, signal.SIGHUP):
        with contextlib.suppress(ValueError):  # not the main thread
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, end)
                replaced.append(number)
    try:
        yield
    finally:
        for number in replaced:
            with contextlib.suppress(ValueError):
                signal.signal(number, signal.SIG_DFL)
