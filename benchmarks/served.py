"""The cells of the classifiers: every contender from one TorchServe, in turn, and the model alone in between."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.server import Server

from . import load
from .alone import Alone
from .archives import CONTENDERS, LONG_LENGTH, MAX_LENGTH, Variant
from .cells import Cell
from .workloads import Workload

Report = Callable[[str], None]
JVM = ()
"""No options: a server that is to last starts Java as Java is, with its second compiler."""

_WARM_UP = 3.0  # seconds of the empty handler: Java compiles what all requests go through
LEAST = 16  # answers of a round


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How long and how often. `contenders` have cells, in one server for each group."""

    seconds: float
    rounds: int
    contenders: tuple[str, ...] = CONTENDERS
    quick: bool = False


@dataclass(frozen=True, kw_only=True)
class Group:
    """Cells that share a server: its archives have these settings."""

    workloads: tuple[str, ...]
    concurrencies: tuple[int, ...]
    batch_size: int
    workers: int
    max_length: int


def groups(plan: Plan) -> list[Group]:
    """What is measured: one worker in all ways, two where batches are full anyway."""
    brief, lengthy = ("short", "mixed"), ("long",)
    if plan.quick:
        return [
            Group(workloads=brief, concurrencies=(1, 8), batch_size=8, workers=1, max_length=MAX_LENGTH),
        ]
    return [
        Group(workloads=brief, concurrencies=(1, 8, 16), batch_size=8, workers=1, max_length=MAX_LENGTH),
        Group(workloads=brief, concurrencies=(1, 8, 16), batch_size=1, workers=1, max_length=MAX_LENGTH),
        Group(workloads=brief, concurrencies=(16,), batch_size=8, workers=2, max_length=MAX_LENGTH),
        Group(workloads=lengthy, concurrencies=(1, 8, 16), batch_size=8, workers=1, max_length=LONG_LENGTH),
        Group(workloads=lengthy, concurrencies=(1, 16), batch_size=1, workers=1, max_length=LONG_LENGTH),
        Group(workloads=lengthy, concurrencies=(16,), batch_size=8, workers=2, max_length=LONG_LENGTH),
    ]


def variants(group: Group, plan: Plan) -> list[Variant]:
    """The archives of a group's server."""
    return [
        Variant(contender=contender, batch_size=group.batch_size, workers=group.workers, max_length=group.max_length)
        for contender in ("empty", *plan.contenders)
    ]


@contextmanager
def serving(archives: Sequence[Path], env: Mapping[str, str] | None = None) -> Iterator[Server]:
    """A server with all of its workers READY."""
    with Server(archives, jvm=JVM, env=env) as server:
        server.wait_ready(timeout=300)
        yield server


def bodies(server: Server, name: str, texts: Sequence[str]) -> list[bytes]:
    """Requests for a classifier."""
    key = server.keys["inference"]
    return [
        load.request(f"/predictions/{name}", {"text": text}, port=server.ports.inference, key=key) for text in texts
    ]


def measure(
    group: Group,
    plan: Plan,
    archives: Mapping[Variant, Path],
    texts: Mapping[str, Workload],
    alone: Alone,
    report: Report,
) -> list[Cell]:
    """The cells of a group, and those of the model alone at its batch size."""
    chosen = variants(group, plan)
    cells: dict[tuple[str, str, int], Cell] = {}

    def cell(contender: str, workload: str, concurrency: int) -> Cell:
        made = Cell(
            section="alone" if contender == "alone" else "served",
            contender=contender,
            workload=workload,
            concurrency=concurrency,
            batch_size=group.batch_size,
            workers=1 if contender == "alone" else group.workers,
        )
        return cells.setdefault((contender, workload, concurrency), made)

    with serving([archives[variant] for variant in chosen]) as server:
        requests = {
            (variant.contender, workload): bodies(server, variant.name, texts[workload].texts)
            for variant in chosen
            for workload in group.workloads
        }
        port = server.ports.inference
        load.run(port, requests["empty", group.workloads[0]], concurrency=8, seconds=_WARM_UP, least=LEAST)
        for number in range(plan.rounds):
            for workload in group.workloads:
                for concurrency in group.concurrencies:
                    turn = ["alone"] if concurrency == group.concurrencies[0] and group.workers == 1 else []
                    turn += [variant.contender for variant in chosen]
                    for contender in turn[:: -1 if number % 2 else 1]:
                        if contender == "alone":
                            sample = alone.run(
                                texts[workload].texts,
                                batch=group.batch_size,
                                max_length=group.max_length,
                                seconds=plan.seconds,
                                least=LEAST,
                            )
                            cell(contender, workload, 1).rounds.append(sample)
                            continue
                        sample = load.run(
                            port,
                            requests[contender, workload],
                            concurrency=concurrency,
                            seconds=plan.seconds,
                            least=LEAST,
                        )
                        cell(contender, workload, concurrency).rounds.append(sample)
                        report(f"{contender} {workload} c{concurrency} b{group.batch_size}: {sample.rate:.1f}/s")
    return list(cells.values())
