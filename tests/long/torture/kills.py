"""SIGKILL at random moments of every stage, and at the boundaries between them; then the same build again."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from . import caches
from .caches import STAGES
from .command import Ended, Place, Running, lingering
from .mounts import MIB, Mounted, refusal
from .report import Report, side_by_side
from .samples import Sample, lasted, succeeded
from .watch import Watcher, allowed

VERIFY_SHARE = 0.1
"""Of the kills within stages: a verification takes a hundred times as long as the other stages together."""


@dataclass(frozen=True, kw_only=True)
class Aim:
    """One kill: at a moment of a stage, or when it is done (`boundary`); of `everything`, or of `mar` alone and not its
    workers; over an `older` archive in the output folder, or into an empty one."""

    sample: Sample
    stage: str
    boundary: bool
    everything: bool
    older: bool
    moment: float
    """The part of the stage's usual time that passes before it."""

    def __str__(self) -> str:
        when = "at the end" if self.boundary else f"after {self.moment:.0%}"
        return (
            f"{self.sample.mode}, {self.stage} {when}, {'all processes' if self.everything else 'mar alone'}, "
            f"{'over an older archive' if self.older else 'into an empty folder'}"
        )


class Lane:
    """A place whose builds always have the same paths; how long their stages take undisturbed, and what the cache holds
    after them."""

    def __init__(self, folder: Path, out: Path, samples: Sequence[Sample]) -> None:
        self.place = Place(folder, out=out)
        self.seconds: dict[tuple[str, str], float] = {}
        self.wanted: dict[str, set[str]] = {}
        for sample in samples:
            caches.put(sample.without["download"], self.place.cache)
            caches.put(None, out)
            built = succeeded(self.place(*sample.words))
            succeeded(self.place("cache", "gc"))
            self.wanted[sample.mode] = caches.names(self.place.cache)
            # An archive that was made before is read again before it is stored, which takes longer than storing it.
            caches.put(None, out)
            stored = succeeded(self.place(*sample.words))
            for stage in STAGES:
                known = lasted(stored if stage == "model_store" else built, stage) if stage != "verify" else None
                self.seconds[sample.mode, stage] = known or sample.seconds["verify"]


def run(folder: Path, samples: Sequence[Sample], *, within: int, boundaries: int, lanes: int, seed: int) -> Report:
    """So many kills `within` stages, and so many at each of the boundaries."""
    report = Report("kill -9")
    aims = _aims(samples, within, boundaries, random.Random(seed))
    with ExitStack() as stack:
        ways = []
        for number in range(lanes):
            out = folder / f"out{number}"
            if number % 2 and not refusal():
                # The archive is copied from another file system, which leaves more time to be killed in.
                out = stack.enter_context(Mounted(out, 256 * MIB)).folder / "out"
            ways.append(Lane(folder / f"lane{number}", out, samples))
        side_by_side(lambda number, aim: _kill(ways[number], aim, report), aims, lanes)
    return report


def _aims(samples: Sequence[Sample], within: int, boundaries: int, chance: random.Random) -> list[Aim]:
    quick = [stage for stage in STAGES if stage != "verify"]
    slow = round(within * VERIFY_SHARE)
    stages = [(quick[number % len(quick)], False) for number in range(within - slow)]
    stages += [("verify", False)] * slow + [(stage, True) for stage in STAGES for _ in range(boundaries)]
    aims = [
        Aim(
            # Each stage in turn meets each sample.
            sample=samples[(number + number // len(quick)) % len(samples)],
            stage=stage,
            boundary=boundary,
            everything=chance.random() < 0.5,
            older=chance.random() < 0.5,
            moment=chance.random(),
        )
        for number, (stage, boundary) in enumerate(stages)
    ]
    chance.shuffle(aims)
    return aims


def _kill(lane: Lane, aim: Aim, report: Report) -> None:
    sample, place = aim.sample, lane.place
    old = caches.digests(sample.older) if aim.older else None
    new = caches.digests(sample.out)
    caches.put(sample.without[aim.stage], place.cache)
    caches.put(sample.older if aim.older else None, place.out)
    with Watcher(place.out, allowed(old, new)) as watcher:
        killed = place.start(*sample.words)
        workers = _struck(killed, aim, lane.seconds[sample.mode, aim.stage])
        with ThreadPoolExecutor(1) as pool:
            left = pool.submit(lingering, workers)
            ended = killed.ended()
            again = place(*sample.words)
    if again.span(aim.stage):
        # While it is watched, and with another lane beside it, a stage takes longer than it did alone.
        lane.seconds[sample.mode, aim.stage] = lasted(again, aim.stage)
    report.count("kills" if ended.code == -9 else "came too late")
    report.count(f"at the end of {aim.stage}" if aim.boundary else f"within {_reached(ended)}")
    report.count("of all processes" if aim.everything else "of mar alone")
    report.count("of builds with workers", bool(workers))
    report.count("looks at the model store", watcher.looks)
    report.expect(ended.code in (-9, 0), f"{aim}: the build ended by itself: {ended.told()}")
    if report.expect(again.code == 0, f"{aim}: the next build failed: {again.told()}"):
        report.expect(again.archive.get("sha256") == sample.sha256, f"{aim}: the next build told another digest")
    found = caches.digests(place.out)
    differ = sorted(path for path in {*found, *new} if found.get(path) != new.get(path))
    report.expect(not differ, f"{aim}: the output folder is not as it should be: {', '.join(differ)}")
    for fault in watcher.faults:
        report.expect(False, f"{aim}: {fault}")
    report.expect(not left.result(), f"{aim}: {len(left.result())} workers went on without it")
    swept = place("cache", "gc")
    report.expect(swept.code == 0, f"{aim}: mar cache gc failed: {swept.told()}")
    unlike = caches.unlike(caches.names(place.cache), lane.wanted[sample.mode])
    report.expect(not unlike, f"{aim}: the cache is not as after an undisturbed build: {unlike}")


def _reached(ended: Ended) -> str:
    """The stage that a build was at last."""
    heads = [line.partition(":")[0] for _, line in ended.lines]
    return next((head for head in reversed(heads) if head in STAGES), "the start")


def _struck(running: Running, aim: Aim, usual: float) -> list[int]:
    """Kill it at the moment that is aimed at. Its workers then, by id."""
    done = f"{aim.stage}: done"

    def due(line: str) -> bool:
        if aim.boundary:
            return line.startswith(done)
        return line == aim.stage or line.startswith(f"{aim.stage}: ")

    running.says(due)
    if not aim.boundary:
        time.sleep(aim.moment * usual)
    return running.kill(everything=aim.everything)
