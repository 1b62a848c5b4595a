"""A build's progress on standard error: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..text import one_line, size
from . import console

if TYPE_CHECKING:
    from rich.progress import Progress

    from ..builder.build import Build
    from ..builder.runner import Done
    from ..builder.status import Status

QUIET = 10.0
"""Seconds after which a long step prints another line of progress."""


class Lines:
    """Progress in plain lines, for logs and pipes."""

    def __init__(self) -> None:
        self._last_line = time.monotonic()
        self._what = ""

    def started(self, _build: Build, status: Status) -> None:
        why = _why(status)
        self._line(f"{status.stage}: {why}" if why else status.stage)

    def progress(self, what: str, done: int, total: int | None) -> None:
        if what != self._what or time.monotonic() - self._last_line > QUIET:
            self._what = what
            part = f" ({size(done)} of {size(total)})" if total and total > 10_000 else ""
            self._line(f"  {one_line(what)}{part}")

    def finished(self, _build: Build, done: Done) -> None:
        self._what = ""
        self._line(f"{done.stage}: {'cached' if done.cached else f'done in {done.seconds:.1f} s'}")

    def _line(self, text: str) -> None:
        self._last_line = time.monotonic()
        print(text, file=sys.stderr, flush=True)


class Bars:
    """Progress on a terminal: a bar for the running stage, a line for each finished one."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task: Any = None
        self._stage = ""

    def started(self, _build: Build, status: Status) -> None:
        self._stage = status.stage
        self._line(status.stage, _why(status))
        self._task = self._progress.add_task(status.stage, total=None, amount="")

    def progress(self, what: str, done: int, total: int | None) -> None:
        if self._task is not None:
            amount = f"{size(done)} of {size(total)}" if total and total > 10_000 else ""
            self._progress.update(self._task, description=what, completed=done, total=total, amount=amount)

    def finished(self, _build: Build, done: Done) -> None:
        if self._task is not None:
            self._progress.remove_task(self._task)
            self._task = None
        if done.cached:
            self._line(done.stage, "cached")

    def _line(self, stage: str, what: str) -> None:
        from rich.text import Text

        self._progress.console.print(Text.assemble((stage, "bold"), " ", (what, "dim")))


def _why(status: Status) -> str:
    return one_line("; ".join(map(str, status.reasons[:3])))


@contextmanager
def events() -> Iterator[Lines | Bars]:
    """The receiver of a build's events: bars if standard error is a terminal that can show them, else plain lines."""
    if not (sys.stderr.isatty() and console.draws(sys.stderr)):
        yield Lines()
        return
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from . import styled

    progress = Progress(
        SpinnerColumn(),
        # What is done names files of a checkpoint: no markup.
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[amount]}"),
        TimeElapsedColumn(),
        console=styled.console(stderr=True),
        transient=True,
    )
    # It takes what is printed meanwhile, to show it above the bars, and interprets it: so that is escaped once more.
    with progress, console.escaping():
        yield Bars(progress)
