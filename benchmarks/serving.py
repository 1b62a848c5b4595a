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
from pathlib import Path

from . import checkpoints, machine, served, table
from .alone import Alone
from .archives import CONTENDERS, build
from .cells import Cell
from .workloads import workloads


def _report(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("build/bench"))
    parser.add_argument("--checkpoint", type=Path, help="a classifier to serve instead of MiniLM with a head")
    parser.add_argument("--seconds", type=float, help="of a cell, in each round (1.5)")
    parser.add_argument("--rounds", type=int, help="how often each cell is measured (3)")
    parser.add_argument("--contenders", default=",".join(CONTENDERS), help="(%(default)s)")
    parser.add_argument("--quick", action="store_true", help="few cells, once, half a second each")
    asked = parser.parse_args()
    # The workers decide themselves how many threads they take.
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.pop(name, None)

    plan = served.Plan(
        seconds=asked.seconds or (0.5 if asked.quick else 1.5),
        rounds=asked.rounds or (1 if asked.quick else 3),
        contenders=tuple(asked.contenders.split(",")),
        quick=asked.quick,
    )
    out: Path = asked.out
    out.mkdir(parents=True, exist_ok=True)
    classifier, generator = checkpoints.make(asked.checkpoint, out / "checkpoints", small=asked.quick)
    texts = workloads(classifier / "tokenizer.json")
    groups = served.groups(plan)
    archives = build(
        [variant for group in groups for variant in served.variants(group, plan)],
        classifier,
        generator,
        out / "archives",
    )
    cells: list[Cell] = []
    with Alone(classifier) as alone:
        for group in groups:
            cells += served.measure(group, plan, archives, texts, alone, _report)

    facts = machine.facts()
    found = {"machine": facts, "cells": [cell.as_json() for cell in cells]}
    (out / "serving.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
    text = table.markdown(facts, cells)
    (out / "serving.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
