"""What a busy process beside a worker costs: by how long OpenMP's threads look for each other before they sleep."""

from __future__ import annotations

import subprocess
import sys
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
_SPINS = {"mar serve's": {}, "GNU OpenMP's own": {"GOMP_SPINCOUNT": "300000"}}


def variants(plan: Plan) -> list[Variant]:
    """The first contender."""
    return [Variant(contender=plan.contenders[0], batch_size=_BATCH, max_length=plan.brief)]


def measure(plan: Plan, archives: Mapping[Variant, Path], texts: Workload, report: Report) -> list[Cell]:
    """A cell alone and a cell beside a process that takes a core, for both numbers of looks."""
    (variant,) = variants(plan)
    cells = []
    for name, env in _SPINS.items():
        with serving([archives[variant]], env=env) as server:
            measure_one = burst(server, variant.name, texts.texts, concurrency=_CONCURRENCY, seconds=plan.seconds)
            for beside in ("alone", "beside a busy process"):
                cell = Cell(
                    section="busy",
                    contender=f"{variant.contender}, {beside}, GOMP_SPINCOUNT {name}",
                    workload=texts.name,
                    concurrency=_CONCURRENCY,
                    batch_size=_BATCH,
                )
                busy = None if beside == "alone" else subprocess.Popen([sys.executable, "-c", "while True: pass"])
                try:
                    cell.rounds += [undisturbed(measure_one, plan.patience) for _ in range(plan.rounds)]
                finally:
                    if busy:
                        busy.kill()
                        busy.wait()
                report(f"{cell.contender}: {cell.rate:.1f} texts a second")
                cells.append(cell)
    return cells
