"""A server's processes: their environment, and how to end all of them."""

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
    """The server's environment: `environment.environment()` without variables that would override a setting, and
    without PYTHONPATH folders whose modules would be imported instead of the archive's own. `extra` overrides it."""
    env = {
        name: value
        for name, value in variables.environment().items()
        if name not in ("LOG_LOCATION", "METRICS_LOCATION") and not name.startswith("TS_")
    }
    if path := variables.search_path(env.pop("PYTHONPATH", ""), "handlers", "ts", *variables.LIBRARIES):
        env["PYTHONPATH"] = path
    return env | dict(extra or {})


def guard(group: int, folder: Path) -> subprocess.Popen[bytes]:
    """Start a shell that waits for the end of this process, even if it is killed: then its input is closed, and it
    kills the server's process group and removes the server's folder."""
    # `kill -s`: not every shell accepts a process group after the short form.
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
    """End a process that leads a process group, and the whole group: SIGTERM, up to `grace` seconds to exit, then
    SIGKILL."""
    if grace and process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(grace)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    # The workers are not our children, so we cannot wait for them: they end soon after the signal.
    for _ in range(200):
        if not group_members(process.pid):
            return
        time.sleep(0.01)


def group_members(group: int) -> list[int]:
    """The living processes of a process group."""
    import psutil

    dead = (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    members = []
    for pid in psutil.pids():
        with contextlib.suppress(OSError, psutil.Error):
            if os.getpgid(pid) == group and psutil.Process(pid).status() not in dead:
                members.append(pid)
    return members


@contextlib.contextmanager
def ending_on_signals() -> Iterator[None]:
    """Within the context, SIGTERM and SIGHUP raise SystemExit, so that context managers clean up, as on Ctrl-C. Signal
    handlers that are already set stay, and outside the main thread nothing changes."""

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
