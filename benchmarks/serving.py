"""The serving benchmark, `make bench`: what TorchServe makes of an archive, against a handler that pads to
max_length and against the model alone.

    python -m benchmarks.serving [--quick] [--out build/bench]

Writes serving.md and serving.json into --out, and prints the first.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from . import busy, checkpoints, generation, machine, served, starts, targets, threads
from .alone import Alone
from .archives import CONTENDERS, LONG_LENGTH, MAX_LENGTH, Variant, build, longest
from .cells import Cell
from .plan import Plan, groups, variants
from .quiet import one_at_a_time
from .table import markdown
from .workloads import Workload, prompts, workloads

SECTIONS = ("served", "starts", "generation", "threads", "busy")


@dataclass
class Found:
    """All that a run measured."""

    cells: list[Cell] = field(default_factory=list)
    starts: list[starts.Start] = field(default_factory=list)

    def section(self, *names: str) -> list[dict[str, Any]]:
        """Cells as JSON."""
        return [cell.as_json() for cell in self.cells if cell.section in names]


def report(line: str) -> None:
    """Progress, where it is not in the table's way."""
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    """The command."""
    asked = _arguments()
    # The workers decide themselves how many threads they take.
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        os.environ.pop(name, None)
    facts = machine.facts()
    out: Path = asked.out
    out.mkdir(parents=True, exist_ok=True)
    classifier, generator = checkpoints.make(asked.checkpoint, out / "checkpoints", small=asked.quick)
    plan = Plan(
        seconds=asked.seconds or (0.3 if asked.quick else 1.0),
        rounds=asked.rounds or (1 if asked.quick else 3),
        contenders=tuple(asked.contenders.split(",")),
        brief=longest(classifier, MAX_LENGTH),
        lengthy=longest(classifier, LONG_LENGTH),
        cores=machine.cores(),
        new_tokens=8 if asked.quick else 64,
        patience=0 if asked.quick else asked.patience,
        quick=asked.quick,
    )
    sections = asked.sections.split(",")
    texts = {**workloads(classifier / "tokenizer.json"), "prompts": prompts(generator / "tokenizer.json")}
    archives = build(_wanted(plan, sections), classifier, generator, out / "archives")
    with one_at_a_time(report):
        found = _measure(plan, sections, archives, texts, classifier)

    reached = targets.targets(found.cells, found.starts)
    content = {
        "machine": facts,
        "plan": asdict(plan),
        "workloads": {
            name: {"about": kind.about, "texts": len(kind.texts), "mean_tokens": kind.mean}
            for name, kind in texts.items()
        },
        "reached": [{**asdict(target), "reached": target.reached} for target in reached],
        "cells": found.section("alone", "served"),
        "starts": [start.as_json() for start in found.starts],
        "generation": found.section("generation"),
        "threads": found.section("threads"),
        "busy": found.section("busy"),
    }
    (out / "serving.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    page = markdown(facts, plan, list(texts.values()), reached, found.cells, found.starts)
    (out / "serving.md").write_text(page, encoding="utf-8")
    print(page)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("build/bench"), help="where all goes (%(default)s)")
    parser.add_argument("--checkpoint", type=Path, help="a classifier to serve instead of MiniLM with a head")
    parser.add_argument("--seconds", type=float, help="of a cell, in each round (1)")
    parser.add_argument("--rounds", type=int, help="how often each cell is measured (3)")
    parser.add_argument("--patience", type=int, default=2, help="how often a disturbed round is repeated (%(default)s)")
    parser.add_argument("--contenders", default=",".join(CONTENDERS), help="some of %(default)s")
    parser.add_argument("--sections", default=",".join(SECTIONS), help="some of %(default)s")
    parser.add_argument("--quick", action="store_true", help="few cells, once, for a moment: to see that all runs")
    return parser.parse_args()


def _wanted(plan: Plan, sections: list[str]) -> list[Variant]:
    """The archives that the sections need."""
    wanted = [variant for group in groups(plan) for variant in variants(group, plan)] if "served" in sections else []
    for name, section in (("starts", starts), ("generation", generation), ("threads", threads), ("busy", busy)):
        if name in sections:
            wanted += section.variants(plan)
    return wanted


def _measure(
    plan: Plan, sections: list[str], archives: Mapping[Variant, Path], texts: Mapping[str, Workload], classifier: Path
) -> Found:
    found = Found()
    if "served" in sections:
        with Alone(classifier) as alone:
            for group in groups(plan):
                found.cells += served.measure(group, plan, archives, texts, alone, report)
    # By now no other process has torch loaded, so that a worker's private memory is all that it takes.
    if "starts" in sections:
        found.starts = starts.measure(plan, archives, texts["mixed"], report)
    if "generation" in sections:
        found.cells += generation.measure(plan, archives, texts["prompts"], report)
    if "threads" in sections:
        found.cells += threads.measure(plan, archives, texts["mixed"], report)
    if "busy" in sections:
        found.cells += busy.measure(plan, archives, texts["mixed"], report)
    return found


if __name__ == "__main__":
    main()
