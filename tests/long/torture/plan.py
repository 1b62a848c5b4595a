"""Every ordeal, and how much of it is done."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import clocks, crowds, damage, disks, downloads, frozen, kills
from .report import Report
from .samples import SHAPES, Sample, prepare


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How often: `kills` within stages and at each boundary, `crowds` of each kind, `disks` of each kind, bytes changed
    in `places`, `downloads` broken off."""

    kills: int
    boundaries: int
    crowds: int
    disks: int
    places: int
    downloads: int
    lanes: int = 2
    seed: int = 1


FULL = Plan(kills=200, boundaries=3, crowds=20, disks=64, places=200, downloads=100)
SMALL = Plan(kills=12, boundaries=1, crowds=1, disks=12, places=16, downloads=100)

Ordeal = Callable[[Path, Sequence[Sample], Plan], Report]

ORDEALS: Mapping[str, Ordeal] = {
    "kills": lambda folder, samples, plan: kills.run(
        folder, samples, within=plan.kills, boundaries=plan.boundaries, lanes=plan.lanes, seed=plan.seed
    ),
    "crowds": lambda folder, samples, plan: crowds.run(folder, samples, rounds=plan.crowds),
    "disks": lambda folder, samples, plan: disks.run(folder, samples, values=plan.disks, seed=plan.seed),
    "frozen": lambda folder, samples, _plan: frozen.run(folder, samples),
    "damage": lambda folder, samples, plan: damage.run(
        folder, samples[1], places=plan.places, lanes=plan.lanes, seed=plan.seed
    ),
    "downloads": lambda folder, _samples, plan: downloads.run(
        folder, times=plan.downloads, lanes=plan.lanes, seed=plan.seed
    ),
    "clocks": lambda folder, samples, plan: clocks.run(folder, samples[1], seed=plan.seed),
}


def samples(folder: Path) -> list[Sample]:
    """What the ordeals build: the wide pretrained one, then the small trace."""
    return [prepare(folder / mode, mode) for mode in SHAPES]


def timed(name: str, folder: Path, found: Sequence[Sample], plan: Plan) -> Report:
    """Do one ordeal."""
    folder.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    report = ORDEALS[name](folder, found, plan)
    report.seconds = time.monotonic() - start
    return report
