"""The cells of the classifiers: every contender from one TorchServe, in turn, and the model alone in between."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from mar_pipeline.serving.server import Server

from . import load
from .alone import Alone
from .archives import Variant
from .cells import Cell
from .plan import LEAST, Group, Plan, Report, variants
from .quiet import undisturbed
from .serve import disagreements, requests, serving
from .workloads import Workload

_WARM_UP = 3.0  # seconds of the empty handler: Java compiles what all requests go through
_CHECKED = 8  # texts of each workload whose labels are compared before anything is timed


def measure(
    group: Group,
    plan: Plan,
    archives: Mapping[Variant, Path],
    texts: Mapping[str, Workload],
    alone: Alone,
    report: Report,
) -> list[Cell]:
    """The cells of a group, and of the model alone in batches of the same size, and of one where one at a time is
    asked for. Raises LoadError if contenders answer differently."""
    chosen = variants(group, plan)
    turns = [(workload, concurrency) for workload in group.workloads for concurrency in group.concurrencies]
    cells: dict[tuple[str, str, int, int], Cell] = {}

    def note(contender: str, workload: str, concurrency: int, batch: int, sample: load.Sample) -> None:
        beside = contender == "alone"
        made = Cell(
            section="alone" if beside else "served",
            contender=contender,
            workload=workload,
            concurrency=concurrency,
            batch_size=batch,
            workers=1 if beside else group.workers,
            beside=group.batch_size if beside else None,
        )
        cells.setdefault((contender, workload, concurrency, batch), made).rounds.append(sample)
        report(f"{contender}, {workload}, batches of {batch}, {concurrency} at once: {sample.rate:.1f} a second")

    def ask_alone(workload: str, batch: int) -> None:
        words = texts[workload].texts
        length, seconds = group.max_length, plan.seconds
        sample = undisturbed(
            lambda: alone.run(words, batch=batch, max_length=length, seconds=seconds, least=LEAST), plan.patience
        )
        note("alone", workload, 1, batch, sample)

    with serving([archives[variant] for variant in chosen], workers=group.workers) as server:
        bodies = {
            (variant.contender, workload): requests(
                server, variant.name, [{"text": text} for text in texts[workload].texts]
            )
            for variant in chosen
            for workload in group.workloads
        }
        port = server.ports.inference
        _prepare(server, group, chosen, bodies, texts, seconds=min(_WARM_UP, 2 * plan.seconds))
        for number in range(plan.rounds):
            for workload, concurrency in turns:
                steps = [variant.contender for variant in chosen]
                if group.workers == 1 and concurrency in (1, max(group.concurrencies)):
                    steps.insert(len(steps) // 2, "alone")
                for contender in steps[:: -1 if number % 2 else 1]:
                    if contender == "alone":
                        # One at a time beside one at a time, full batches beside full batches.
                        ask_alone(workload, 1 if concurrency == 1 else group.batch_size)
                    else:
                        asked = bodies[contender, workload]
                        measure_one = partial(
                            load.run, port, asked, concurrency=concurrency, seconds=plan.seconds, least=LEAST
                        )
                        sample = undisturbed(measure_one, plan.patience)
                        note(contender, workload, concurrency, group.batch_size, sample)
    return list(cells.values())


def _prepare(
    server: Server,
    group: Group,
    chosen: list[Variant],
    bodies: Mapping[tuple[str, str], list[bytes]],
    texts: Mapping[str, Workload],
    seconds: float,
) -> None:
    """Warm up the server and every model, and see that all models say the same."""
    first = group.workloads[0]
    load.run(server.ports.inference, bodies["empty", first], concurrency=8, seconds=seconds, least=LEAST)
    for variant in chosen[1:]:
        load.run(server.ports.inference, bodies[variant.contender, first], concurrency=8, seconds=0, least=LEAST)
        checked = [text for workload in group.workloads for text in texts[workload].texts[:_CHECKED]]
        if chosen[1].contender != "padding" and (wrong := disagreements(server, chosen[1].name, variant.name, checked)):
            raise load.LoadError(
                f"{variant.contender} has other labels than {chosen[1].contender} for {len(wrong)} of {len(checked)} "
                f"texts, as {wrong[0][:80]!r}"
            )
