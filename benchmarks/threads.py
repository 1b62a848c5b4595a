"""How many threads a worker should take: fewer and more than its part of the cores, with one worker and with two."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from .archives import Variant
from .cells import Cell
from .plan import Plan, Report
from .quiet import undisturbed
from .serve import burst, serving
from .workloads import Workload

_BATCH = 8
_CONCURRENCY = 16


def variants(plan: Plan) -> list[Variant]:
    """The first contender, with one worker and with two."""
    return [
        Variant(contender=plan.contenders[0], batch_size=_BATCH, workers=workers, max_length=plan.brief)
        for workers in ((1,) if plan.quick else (1, 2))
    ]


def measure(plan: Plan, archives: Mapping[Variant, Path], texts: Workload, report: Report) -> list[Cell]:
    """A cell for each number of workers and of threads. The number of threads is set for a whole server, so these
    cells are measured one after the other, not in turn."""
    cells = []
    for variant in variants(plan):
        for threads in sorted({1, max(1, plan.cores // 2), plan.cores}):
            cell = Cell(
                section="threads",
                contender=variant.contender,
                workload=texts.name,
                concurrency=_CONCURRENCY,
                batch_size=_BATCH,
                workers=variant.workers,
                threads=threads,
            )
            with serving([archives[variant]], workers=variant.workers, env={"OMP_NUM_THREADS": str(threads)}) as server:
                measure_one = burst(server, variant.name, texts.texts, concurrency=_CONCURRENCY, seconds=plan.seconds)
                cell.rounds += [undisturbed(measure_one, plan.patience) for _ in range(plan.rounds)]
            report(f"{variant.workers} workers of {threads} threads: {cell.rate:.1f} texts a second")
            cells.append(cell)
    return cells
