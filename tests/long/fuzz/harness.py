"""Tries a reader with changed inputs, until the time is over or one is a fault."""

from __future__ import annotations

import resource
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from mar_pipeline.errors import MarError

CORPUS = Path(__file__).with_name("corpus")
SECONDS = 20
"""The most for an input: the readers take milliseconds for their seeds."""
MEMORY = 1 << 30
"""The most bytes for an input, beside what the process has."""
_BATCH = 300


@dataclass(frozen=True)
class Reader:
    """What is tried: `read` gets an input and an empty folder, and may raise `expected`. `inputs` makes inputs."""

    name: str
    read: Callable[[bytes, Path], Any]
    inputs: st.SearchStrategy[bytes]
    expected: tuple[type[BaseException], ...] = (MarError,)


@dataclass
class Found:
    """How many inputs were tried, how many of them were accepted, and the one that is a fault, if any."""

    tried: int = 0
    accepted: int = 0
    fault: bytes | None = None
    error: BaseException | None = None

    def __str__(self) -> str:
        fault = "no fault" if self.error is None else f"{type(self.error).__name__}: {self.error}"
        return f"{self.tried:,} inputs tried, {self.accepted:,} accepted: {fault}"


class Slow(Exception):
    """An input takes too long."""


def explore(reader: Reader, seconds: float, first: int = 0) -> Found:
    """Try inputs for so many seconds, from the seed `first` on; end at the first fault."""
    found, until, number = Found(), time.monotonic() + seconds, first
    with tempfile.TemporaryDirectory() as scratch:
        while time.monotonic() < until and found.error is None:
            _batch(reader, Path(scratch), number, until, found)
            number += 1
    return found


def _batch(reader: Reader, scratch: Path, number: int, until: float, found: Found) -> None:
    @seed(number)
    @settings(
        max_examples=_BATCH,
        deadline=None,
        database=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    @given(reader.inputs)
    def attempt(data: bytes) -> None:
        if time.monotonic() > until or found.fault is not None:
            return
        found.tried += 1
        try:
            found.accepted += once(reader, data, scratch)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            found.fault, found.error = data, error

    attempt()


def once(reader: Reader, data: bytes, scratch: Path) -> bool:
    """Whether the reader accepts an input. Raises what it does not document, Slow or MemoryError."""
    with tempfile.TemporaryDirectory(dir=scratch) as folder, _bounds():
        try:
            reader.read(data, Path(folder))
        except reader.expected:
            return False
    return True


@contextmanager
def _bounds() -> Iterator[None]:
    def end(*_: Any) -> None:
        raise Slow(f"it took more than {SECONDS} s")

    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    pages = int(Path("/proc/self/statm").read_text().split()[5])
    resource.setrlimit(resource.RLIMIT_DATA, (pages * resource.getpagesize() + MEMORY, hard))
    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def check(reader: Reader, tmp_path: Path, seconds: float = 30) -> None:
    """The test of a reader: half a minute of new inputs, whose fault is kept in `tmp_path`."""
    found = explore(reader, seconds, first=int(time.time()))
    if found.error is not None:
        (tmp_path / "input").write_bytes(found.fault or b"")
        raise AssertionError(f"{found}; the input is {tmp_path / 'input'}") from found.error
    assert found.tried > 50, found
