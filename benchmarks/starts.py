"""How soon a worker is READY, and what memory it takes: one archive alone on a server, started again in each round."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from . import load
from .archives import Variant
from .memory import Memory, loaded, memory, started, workers
from .plan import Plan, Report
from .serve import requests, serving
from .workloads import Workload

_BATCH = 8
_REQUESTS = 64  # before the memory is read


@dataclass(kw_only=True)
class Start:
    """An archive's starts: seconds from a worker process's start to READY, and from the server's start; the memory of
    its first worker, and of its last where there are two, after some requests."""

    contender: str
    workers: int
    ready: list[float] = field(default_factory=list)
    server_ready: list[float] = field(default_factory=list)
    first: list[Memory] = field(default_factory=list)
    last: list[Memory] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Median, from the worker's start."""
        return statistics.median(self.ready)

    @property
    def server_seconds(self) -> float:
        """Median, from the server's start."""
        return statistics.median(self.server_ready)

    def memory(self, kind: str, last: bool = False) -> float:
        """Median in MB of `rss`, `peak`, `pss` or `private`."""
        return statistics.median(float(getattr(found, kind)) for found in (self.last if last else self.first))

    def as_json(self) -> dict[str, Any]:
        """Medians, and every start."""
        kinds = ("rss", "peak", "pss", "private")
        return {
            **asdict(self),
            "seconds": self.seconds,
            "server_seconds": self.server_seconds,
            "memory_mb": {kind: self.memory(kind) for kind in kinds},
            "last_memory_mb": {kind: self.memory(kind, last=True) for kind in kinds},
        }


def variants(plan: Plan) -> list[Variant]:
    """Every contender, and the first of them with two workers; in a quick run, what the targets speak of."""
    if plan.quick:
        pair = [name for name in ("default", "torchscript") if name in plan.contenders]
        return [Variant(contender=name, batch_size=_BATCH, max_length=plan.brief) for name in pair]
    made = [Variant(contender=name, batch_size=_BATCH, max_length=plan.brief) for name in plan.contenders]
    two = Variant(contender=plan.contenders[0], batch_size=_BATCH, workers=2, max_length=plan.brief)
    return [*made, two]


def measure(plan: Plan, archives: Mapping[Variant, Path], texts: Workload, report: Report) -> list[Start]:
    """Starts of each of `variants`, in turn."""
    found = {variant: Start(contender=variant.contender, workers=variant.workers) for variant in variants(plan)}
    for number in range(plan.rounds):
        for variant in list(found)[:: -1 if number % 2 else 1]:
            _start(found[variant], variant, archives[variant], texts.texts)
            ready, private = found[variant].ready[-1], found[variant].first[-1].private
            report(f"{variant.name}: READY {ready:.1f} s after its start, {private:.0f} MB private")
    return list(found.values())


def _start(start: Start, variant: Variant, archive: Path, texts: Sequence[str]) -> None:
    with serving([archive], workers=variant.workers) as server:
        bodies = requests(server, variant.name, [{"text": text} for text in texts])
        load.run(server.ports.inference, bodies, concurrency=16, seconds=0, least=_REQUESTS)
        processes = sorted(workers(server, variant.name), key=started)
        first = processes[0]
        start.ready.append(min(loaded(server, variant.name)) - started(first))
        start.server_ready.append(server.ready[variant.name])
        start.first.append(memory(first))
        start.last.append(memory(processes[-1]))
