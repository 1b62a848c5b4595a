"""A clock that was wrong: the times of everything in the store lie far in the future, or in the past."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

from . import caches
from .command import Place
from .report import Report
from .samples import Sample

YEAR = 365.25 * 86400
AWAY = {
    "a year ahead": YEAR,
    "ten years ahead": 10 * YEAR,
    "a year behind": -YEAR,
    "at the clock's zero": -time.time(),
    "each elsewhere": None,
}


def run(folder: Path, sample: Sample, *, seed: int) -> Report:
    """Move the times of all files of a finished cache and of its output folder, build, and collect garbage."""
    report = Report("clocks")
    place, chance = Place(folder), random.Random(seed)
    wanted = caches.digests(sample.out)
    for name, away in AWAY.items():
        caches.put(sample.cache, place.cache)
        caches.put(sample.out, place.out)
        report.expect(place(*sample.words).code == 0, f"{name}: the build before")
        kept = caches.names(place.cache)
        for file in (*caches.files(place.cache), *place.out.rglob("*")):
            moved = chance.uniform(-20, 20) * YEAR if away is None else away
            then = max(0.0, time.time() + moved)
            os.utime(file, (then, then))
        report.count("clocks")
        for words in (("cache", "list"), ("cache", "verify"), ("plan", *sample.words[1:])):
            done = place(*words)
            report.expect(done.code == 0, f"{name}: mar {' '.join(words[:2])}: {done.told()}")
        if away is not None and away > 0:
            # What a clock has used that was ahead is not older than any age.
            swept = place("cache", "gc", "--older-than", "1h")
            report.expect(swept.code == 0, f"{name}: mar cache gc: {swept.told()}")
            lost = {path for path in kept - caches.names(place.cache) if path.startswith(("keys/", "blobs/", "trees/"))}
            report.expect(not lost, f"{name}: gc --older-than 1h dropped {caches.unlike([], lost)}")
        built = place(*sample.words)
        report.expect(built.code == 0, f"{name}: the build failed: {built.told()}")
        report.expect(caches.digests(place.out) == wanted, f"{name}: the output folder is not as it should be")
        for stage, cached in built.cached.items():
            report.count(f"{stage} {'cached' if cached else 'made again'}")
        # Used just now, whatever its time said before.
        swept = place("cache", "gc", "--older-than", "1h")
        report.expect(swept.code == 0, f"{name}: mar cache gc after a build: {swept.told()}")
        again = place(*sample.words)
        report.expect(again.code == 0 and all(again.cached.values()), f"{name}: gc dropped what was used just now")
    return report
