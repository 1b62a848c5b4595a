"""Builds that begin together: what they share is made once, and what they do not share is made side by side."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from . import caches
from .caches import STAGES
from .command import Ended, Place
from .report import Report
from .samples import Sample, succeeded

SIZE = 8

OWN, ONE, LAST = "with an output folder each", "with one output folder", "with all but the output folder cached"


def run(folder: Path, samples: Sequence[Sample], *, rounds: int) -> Report:
    """So many crowds with an output folder each, as many with one for all, as many of which everything is cached but
    the output folder, and one of different configs."""
    report = Report("crowds")
    for number in range(rounds):
        # A trace takes long to make; every fourth crowd does.
        sample = samples[1 if number % 4 == 3 else 0]
        for kind in (OWN, ONE, LAST):
            _crowd(folder / f"crowd{number}", sample, kind, report)
    _different(folder / "different", samples, report)
    return report


def _crowd(folder: Path, sample: Sample, kind: str, report: Report) -> None:
    place = Place(folder)
    caches.put(sample.cache if kind == LAST else None, place.cache)
    outs = [folder / f"out{number}" if kind == OWN else place.out for number in range(SIZE)]
    running = [place.start(*sample.words, out=out) for out in outs]
    ended = [one.ended() for one in running]
    what = f"{SIZE} builds of {sample.mode} {kind}"
    report.count(f"crowds {kind}")
    for one in ended:
        report.expect(one.code == 0, f"{what}: one failed: {one.told()}")
        report.expect(one.archive.get("sha256") == sample.sha256, f"{what}: one told another digest")
    for stage in STAGES:
        made = sum(not one.cached.get(stage, True) for one in ended)
        wanted = 1
        if stage == "model_store":
            wanted = SIZE if kind == OWN else 1
        elif kind == LAST:
            wanted = 0
        report.expect(made == wanted, f"{what}: {stage} was made {made} times, not {wanted}")
        report.count(f"{kind}: {stage} made by {made} of {SIZE}")
    for out in set(outs):
        report.expect(caches.digests(out) == caches.digests(sample.out), f"{what}: {out.name} is not as it should be")
    verified = place("cache", "verify")
    report.expect(verified.code == 0, f"{what}: mar cache verify: {verified.out}")
    report.expect(not list((place.cache / "tmp").glob("*")), f"{what}: something is left in tmp")
    caches.put(None, folder)


def _different(folder: Path, samples: Sequence[Sample], report: Report) -> None:
    place = Place(folder)
    wanted = [(sample.words, sample.sha256, "newer") for sample in samples]
    wanted += [(sample.older_words, sample.older_sha256, "older") for sample in samples]
    running = [place.start(*words, out=folder / out) for words, _, out in wanted]
    ended = [one.ended() for one in running]
    for one, (_, sha256, _) in zip(ended, wanted, strict=True):
        if report.expect(one.code == 0, f"different configs: one failed: {one.told()}"):
            report.expect(one.archive.get("sha256") == sha256, "different configs: one made another archive than alone")
    report.count("crowds of different configs")
    report.expect(_overlap(ended, "verify"), "different configs: each verification waited for the one before")
    for out, archives in (("newer", [s.sha256 for s in samples]), ("older", [s.older_sha256 for s in samples])):
        found = caches.digests(folder / out)
        stored = {found.get(sample.archive) for sample in samples}
        report.expect(stored == set(archives), f"different configs: {out}/ holds other archives than those built")
        sums = (folder / out / "SHA256SUMS").read_text(encoding="utf-8").split()[::2]
        report.expect(sorted(sums) == sorted(archives), f"different configs: {out}/SHA256SUMS does not list both")
    succeeded(place("cache", "verify"))


def _overlap(ended: Sequence[Ended], stage: str) -> bool:
    """Whether two of them were at a stage at one time."""
    spans = sorted(span for one in ended if (span := one.span(stage)))
    return any(before[1] > after[0] for before, after in pairwise(spans))
