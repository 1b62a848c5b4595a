"""The command in a process of its own, with a cache and an output folder: run to its end, or watched and killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

LONGEST = 300.0
"""Seconds after which a command hangs."""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a command ended: its exit code (minus a signal's number), and what it printed."""

    code: int
    out: str
    err: str
    lines: tuple[tuple[float, str], ...] = field(default=(), repr=False)
    """The lines of `err`, with the time (`time.monotonic`) that each was read at."""

    @property
    def archive(self) -> dict[str, Any]:
        """What `build --json` tells of its one archive; empty if it tells nothing."""
        try:
            return dict(json.loads(self.out)["archives"][0])
        except (ValueError, LookupError):
            return {}

    @property
    def cached(self) -> dict[str, bool]:
        """Of each stage that `--json` tells of, whether it was cached."""
        return {stage["stage"]: stage["cached"] for stage in self.archive.get("stages", ())}

    @property
    def error(self) -> list[str]:
        """The lines from `error:` on; empty if there is none."""
        _, found, rest = self.err.partition("error: ")
        return rest.splitlines() if found else []

    @property
    def warned(self) -> bool:
        return "warning: " in self.err

    @property
    def broken(self) -> bool:
        """Whether it ended in a way that nobody foresaw."""
        return self.code == 1 or "Traceback" in self.err or "Unexpected" in self.err

    def span(self, stage: str) -> tuple[float, float] | None:
        """When a stage began and ended, by its lines; None if it did not run to its end."""
        own = [(when, line) for when, line in self.lines if line == stage or line.startswith(f"{stage}: ")]
        return (own[0][0], own[-1][0]) if own and own[-1][1].startswith(f"{stage}: done") and len(own) > 1 else None

    def told(self) -> str:
        """The end of it, for a fault's text."""
        return f"exit code {self.code}; {self.err[-900:].strip()}"


class Running:
    """A command that runs, in a process group of its own."""

    def __init__(self, words: list[str], env: dict[str, str], folder: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "mar_pipeline", *words],
            cwd=folder,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._lines: list[tuple[float, str]] = []
        self._out: list[str] = []
        self._more = threading.Condition()
        self._readers = [
            threading.Thread(target=self._read, args=(self._process.stderr, self._tell), daemon=True),
            threading.Thread(target=self._read, args=(self._process.stdout, self._out.append), daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, stream: IO[str], each: Callable[[str], None]) -> None:
        with stream:
            for line in stream:
                each(line)

    def _tell(self, line: str) -> None:
        with self._more:
            self._lines.append((time.monotonic(), line.rstrip("\n")))
            self._more.notify_all()

    def says(self, wanted: Callable[[str], bool], timeout: float = LONGEST) -> bool:
        """Wait for a line of standard error; False if the command ends, or the time is up, without it."""
        limit, seen = time.monotonic() + timeout, 0
        while True:
            with self._more:
                if any(wanted(line) for _, line in self._lines[seen:]):
                    return True
                seen = len(self._lines)
                if not self._readers[0].is_alive() or time.monotonic() > limit:
                    return False
                self._more.wait(0.02)

    def kill(self, *, everything: bool) -> list[int]:
        """SIGKILL to the process alone, or to its group and the workers too. The workers that it had, by id."""
        pid = self._process.pid
        try:
            # Stopped, it starts no worker between our look and our signal.
            os.killpg(pid, signal.SIGSTOP)
            workers = descendants(pid)
            if everything:
                for worker in workers:
                    os.kill(worker, signal.SIGKILL)
                os.killpg(pid, signal.SIGKILL)
            else:
                os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return []
        return workers

    def ended(self, timeout: float = LONGEST) -> Ended:
        """Wait for the end. AssertionError if it does not come."""
        try:
            code = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill(everything=True)
            raise AssertionError(f"still running after {timeout:.0f} s: {self._lines[-5:]}") from None
        for reader in self._readers:
            reader.join(10)
        lines = tuple(self._lines)
        return Ended(code=code, out="".join(self._out), err="\n".join(line for _, line in lines), lines=lines)


class Place:
    """A folder with a cache and an output folder in it (or elsewhere), and the command with them."""

    def __init__(
        self, folder: Path, *, cache: Path | None = None, out: Path | None = None, env: Mapping[str, str] | None = None
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.cache, self.out = folder, cache or folder / "cache", out or folder / "out"
        own = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hf"), "OMP_NUM_THREADS": "1"}
        self._env = {**os.environ, **own, **(env or {})}

    def start(self, *words: str, out: Path | None = None) -> Running:
        """Begin a command; a `build` gets its output folder, and tells its result as JSON."""
        if words[0] in ("build", "plan"):
            words = (*words, "--out", str(out or self.out), "--json")
        return Running([*words, "--cache", str(self.cache)], self._env, self.folder)

    def __call__(self, *words: str, out: Path | None = None) -> Ended:
        return self.start(*words, out=out).ended()


def descendants(pid: int) -> list[int]:
    """The ids of all that a process started, and what those started."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        children.setdefault(parent, []).append(int(stat.parent.name))
    found, todo = [], [pid]
    while todo:
        below = children.get(todo.pop(), [])
        found += below
        todo += below
    return found


def lingering(workers: list[int], seconds: float = 3.0) -> list[int]:
    """Those of the workers that still run after so long without the process that started them."""
    limit = time.monotonic() + seconds
    while (left := [pid for pid in workers if _works(pid)]) and time.monotonic() < limit:
        time.sleep(0.05)
    return left


def _works(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        return (
            stat.rpartition(")")[2].split()[0] != "Z"
            and b"mar_pipeline.workers.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
        )
    except OSError:
        return False
