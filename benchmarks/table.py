"""The table, as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from . import machine
from .cells import Cell


def rows(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *body]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def markdown(facts: dict[str, str | int | float], cells: list[Cell]) -> str:
    """The whole page."""
    return f"{machine.line(facts)}\n\n{_cells(cells)}"


def _cells(cells: list[Cell]) -> str:
    head = ("contender", "texts", "batchSize", "workers", "concurrency", "per second", "p50 ms", "p99 ms")
    return rows(
        head,
        (
            (
                cell.contender,
                cell.workload,
                str(cell.batch_size),
                str(cell.workers),
                str(cell.concurrency),
                f"{cell.rate:.1f} {cell.unit}",
                f"{cell.latency(0.5):.1f}",
                f"{cell.latency(0.99):.1f}",
            )
            for cell in cells
        ),
    )
