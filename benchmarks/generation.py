"""Tokens a second of a generator: one prompt at a time, and eight at once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from . import load
from .archives import GENERATION, GENERATION_LENGTH, Variant
from .cells import Cell
from .plan import Plan, Report
from .quiet import undisturbed
from .serve import requests, serving
from .workloads import Workload

BATCHES = (1, 8)


def variants(plan: Plan) -> list[Variant]:
    """Both save modes, for both sizes of batch."""
    del plan
    return [
        Variant(contender=name, batch_size=batch, max_length=GENERATION_LENGTH, task="text_generation")
        for name in GENERATION
        for batch in BATCHES
    ]


def measure(plan: Plan, archives: Mapping[Variant, Path], prompts: Workload, report: Report) -> list[Cell]:
    """Cells in tokens a second; as many requests at once as a batch has places."""
    chosen = variants(plan)
    cells = {
        variant: Cell(
            section="generation",
            contender=variant.contender,
            workload=prompts.name,
            concurrency=variant.batch_size,
            batch_size=variant.batch_size,
            unit="tokens",
        )
        for variant in chosen
    }
    parameters = {"max_new_tokens": plan.new_tokens}
    bodies = [{"prompt": text, "parameters": parameters} for text in prompts.texts]
    with serving([archives[variant] for variant in chosen]) as server:
        for number in range(plan.rounds):
            for variant in chosen[:: -1 if number % 2 else 1]:
                measure_one = partial(
                    load.run,
                    server.ports.inference,
                    requests(server, variant.name, bodies),
                    concurrency=variant.batch_size,
                    seconds=plan.seconds,
                    least=2,
                    count=_tokens,
                )
                sample = undisturbed(measure_one, plan.patience)
                cells[variant].rounds.append(sample)
                report(f"{variant.name}: {sample.rate:.1f} tokens a second")
    return list(cells.values())


def _tokens(body: bytes) -> float:
    return float(json.loads(body)["tokens"])
