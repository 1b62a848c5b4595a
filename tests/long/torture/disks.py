"""Full disks: whichever stage meets them, it says so, nothing is lost, and the build goes on once there is space."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from . import caches
from .caches import STAGES
from .command import Ended, Place
from .mounts import MIB, PAGE, Mounted, refusal
from .report import Report
from .samples import Sample

ALL = "none of them"
"""Where a build that has space enough stops."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Builds from the stage `begin` on, with the `cache`, the `out`put folder or both on a disk that is full."""

    name: str
    sample: Sample
    begin: str
    on_disk: tuple[str, ...]
    values: int

    @property
    def stages(self) -> list[str]:
        """Those that can meet the full disk. A cached verification is only looked at."""
        later = STAGES[STAGES.index(self.begin) :]
        return [stage for stage in later if stage != "verify" or self.begin == "verify"]


def run(folder: Path, samples: Sequence[Sample], *, values: int, seed: int) -> Report:
    """Builds with the cache, the output folder, or both on a full disk, of `values` sizes each."""
    report = Report("full disks")
    if reason := refusal():
        report.skipped = f"nothing can be mounted here ({reason})"
        return report
    wide, small = samples
    # A verification that is not cached takes seconds: fewer of them, of the smaller model.
    few = max(3, values // 4)
    scenes = (
        Scene(name="cache", sample=wide, begin="download", on_disk=("cache",), values=values),
        Scene(name="cache, nothing verified", sample=small, begin="verify", on_disk=("cache",), values=few),
        Scene(name="cache, nothing traced", sample=small, begin="serialize", on_disk=("cache",), values=few),
        Scene(name="output", sample=wide, begin="model_store", on_disk=("out",), values=values // 2),
        Scene(name="cache and output", sample=wide, begin="download", on_disk=("cache", "out"), values=values // 2),
    )
    chance = random.Random(seed)
    for scene in scenes:
        for stage, times in _sweep(folder, scene, report, chance).items():
            report.count(f"full {scene.name}, met by {stage}", times)
    return report


def _sweep(folder: Path, scene: Scene, report: Report, chance: random.Random) -> Counter[str]:
    """Try so many sizes, closing in on those at which one stage gives way to the next. How often each met its end."""
    order = [*scene.stages, ALL]
    enough = 2 * _size(scene.sample.cache) + MIB
    met = {free: _trial(folder, scene, free, report) for free in (0, enough)}
    while len(met) < scene.values:
        sizes = sorted(met)
        gaps = [
            (order.index(met[more]) - order.index(met[less]), more - less, less, more)
            for less, more in pairwise(sizes)
            if more - less > PAGE
        ]
        apart, _, less, more = max(gaps)
        if apart > 1:
            # Most stages differ by some pages, and one by a whole archive: halving the ratio finds either.
            between = int(((less + PAGE) * more) ** 0.5) if chance.random() < 0.5 else (less + more) // 2
        else:
            between = chance.randrange(min(free for free in met if met[free] == ALL))
        free = min(max(between // PAGE * PAGE, less + PAGE), more - PAGE) if apart > 1 else between // PAGE * PAGE
        if free in met:
            break
        met[free] = _trial(folder, scene, free, report)
    return Counter(met.values())


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _trial(folder: Path, scene: Scene, free: int, report: Report) -> str:
    """Build with so much space, then with more. The stage that the first one stopped at, or ALL."""
    sample, room = scene.sample, 4 * _size(scene.sample.cache) + 16 * MIB
    with Mounted(folder / "disk", room) as disk:
        cache, out = (disk.folder / part if part in scene.on_disk else folder / part for part in ("cache", "out"))
        place = Place(folder, cache=cache, out=out)
        caches.put(sample.without[scene.begin], cache)
        caches.put(sample.older, out)
        disk.leave(free)
        built = place(*sample.words)
        report.count("builds")
        stage = _stopped(built)
        what = f"full {scene.name}, {free} bytes free, {stage}"
        if built.code != 0:
            _check(place, scene, what, built, report)
            disk.grow(room)
            again = place(*sample.words)
            if report.expect(again.code == 0, f"{what}: not even with space again: {again.told()}"):
                lost = [one for one in _passed(built) if not again.cached[one]]
                report.expect(not lost, f"{what}: {', '.join(lost)} had to run again")
        wrong = caches.digests(out) != caches.digests(sample.out)
        report.expect(not wrong, f"{what}: the output folder is not as it should be")
        left = [*(cache / "tmp").glob("*"), *out.glob(".*")]
        report.expect(not left, f"{what}: {', '.join(path.name for path in left)} is left")
    return stage


def _check(place: Place, scene: Scene, what: str, built: Ended, report: Report) -> None:
    """What a build has to say of a full disk, and to leave as it was."""
    report.expect(built.code == 3, f"{what}: {built.told()}")
    report.expect("disk is full" in built.err, f"{what}: it does not say so: {built.told()}")
    report.expect(not built.broken, f"{what}: it ends in a way that nobody foresaw: {built.told()}")
    report.expect(1 <= len(built.error) <= 3, f"{what}: said in {len(built.error)} lines: {built.told()}")
    found, new = caches.digests(place.out), caches.digests(scene.sample.out)
    for path, old in caches.digests(scene.sample.older).items():
        whole = found.get(path) in (old, new.get(path))
        report.expect(whole, f"{what}: {path}, of an earlier build, is lost")


def _passed(built: Ended) -> list[str]:
    """The stages that a build had behind it."""
    return [
        stage
        for stage in STAGES
        if any(line.startswith((f"{stage}: done", f"{stage}: cached")) for line in built.err.splitlines())
    ]


def _stopped(built: Ended) -> str:
    """The stage that a build stopped at: the first that it did not finish."""
    passed = _passed(built)
    return next((stage for stage in STAGES if stage not in passed), ALL)
