"""A build's progress on standard error: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..text import size
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
            self._line(f"  {what}{part}")

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
        why = _why(status)
        self._progress.console.print(f"[bold]{status.stage}[/bold] [dim]{_plain(why)}[/dim]", highlight=False)
        self._task = self._progress.add_task(status.stage, total=None, amount="")

    def progress(self, what: str, done: int, total: int | None) -> None:
        if self._task is not None:
            amount = f"{size(done)} of {size(total)}" if total and total > 10_000 else ""
            self._progress.update(self._task, description=_plain(what), completed=done, total=total, amount=amount)

    def finished(self, _build: Build, done: Done) -> None:
        if self._task is not None:
            self._progress.remove_task(self._task)
            self._task = None
        if done.cached:
            self._progress.console.print(f"[bold]{done.stage}[/bold] [dim]cached[/dim]", highlight=False)


def _why(status: Status) -> str:
    return "; ".join(map(str, status.reasons[:3]))


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)


@contextmanager
def events() -> Iterator[Lines | Bars]:
    """The receiver of a build's events: bars if standard error is a terminal that can show them, else plain lines."""
    if not (sys.stderr.isatty() and console.draws(sys.stderr)):
        yield Lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[amount]}"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as progress:
        yield Bars(progress)
