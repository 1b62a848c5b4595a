"""What is to be reached, and whether it is. Every figure is a ratio of medians of one run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .cells import Cell, find
from .starts import Start


@dataclass(frozen=True, kw_only=True)
class Target:
    """`measured` is None where the run did not measure it; `goal` is met from above if `least`, else from below."""

    name: str
    goal: float
    measured: float | None
    least: bool = True
    unit: str = "times"

    @property
    def reached(self) -> bool | None:
        if self.measured is None:
            return None
        return self.measured >= self.goal if self.least else self.measured <= self.goal


_Measure = Callable[[], float | None]


def targets(cells: list[Cell], starts: list[Start]) -> list[Target]:
    """All of them, in the order in which they were asked for."""
    found = []
    for concurrency in (8, 16):
        where = f"batchSize 8, {concurrency} at once"
        short, mixed = ("short", concurrency), ("mixed", concurrency)
        ratio = _over(_served(cells, "default", *short), _served(cells, "padding", *short))
        found.append(Target(name=f"short texts, {where}: default over padding", goal=6, measured=ratio))
        ratio = _over(_served(cells, "default", *short), _alone(cells, "short", 8, 8))
        found.append(Target(name=f"short texts, {where}: default over the model alone", goal=0.75, measured=ratio))
        for contender, goal in (("split", 2.5), ("default", 4)):
            ratio = _over(_served(cells, contender, *mixed), _served(cells, "padding", *mixed))
            found.append(Target(name=f"mixed lengths, {where}: {contender} over padding", goal=goal, measured=ratio))
    found += [
        Target(
            name=f"{workload} texts, batchSize {batch}, one at once: default less empty, over the model alone",
            goal=1.15,
            measured=_overhead(cells, workload, batch),
            least=False,
        )
        for batch in (1, 8)
        for workload in ("short", "mixed", "long")
    ]
    return found + _started(starts) + _generated(cells)


def _served(cells: list[Cell], contender: str, workload: str, concurrency: int, batch: int = 8) -> Cell | None:
    wanted = {"workload": workload, "concurrency": concurrency, "batch_size": batch, "workers": 1}
    return find(cells, section="served", contender=contender, **wanted)


def _alone(cells: list[Cell], workload: str, batch: int, beside: int) -> Cell | None:
    return find(cells, section="alone", workload=workload, batch_size=batch, beside=beside)


def _over(above: Cell | None, below: Cell | None) -> float | None:
    return above.rate / below.rate if above and below else None


def _overhead(cells: list[Cell], workload: str, batch: int) -> float | None:
    """Medians of single texts: what a server's answer takes more than an empty one, in times the model's own."""
    served, empty = (_served(cells, name, workload, 1, batch) for name in ("default", "empty"))
    alone = _alone(cells, workload, 1, batch)
    if not (served and empty and alone):
        return None
    return (served.latency(0.5) - empty.latency(0.5)) / alone.latency(0.5)


def _started(starts: list[Start]) -> list[Target]:
    found = {start.contender: start for start in starts if start.workers == 1}
    pretrained, traced = found.get("default"), found.get("torchscript")
    ratio = saved = None
    if pretrained and traced:
        ratio = traced.seconds / pretrained.seconds
        saved = pretrained.memory("private") - traced.memory("private")
    return [
        Target(name="READY: torchscript over pretrained", goal=0.5, measured=ratio, least=False),
        Target(name="private memory: pretrained less torchscript", goal=300, measured=saved, unit="MB"),
    ]


def _generated(cells: list[Cell]) -> list[Target]:
    found = []
    for contender in ("pretrained", "torchscript"):
        eight, one = (find(cells, section="generation", contender=contender, batch_size=batch) for batch in (8, 1))
        name = f"generation, {contender}: tokens a second at batch 8 over batch 1"
        found.append(Target(name=name, goal=4, measured=_over(eight, one)))
    return found
