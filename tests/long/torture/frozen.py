"""Caches that cannot be written to, and caches on another file system than all the rest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from . import caches
from .command import Ended, Place
from .mounts import MIB, Bound, Mounted, refusal
from .report import Report
from .samples import Sample, succeeded


def run(folder: Path, samples: Sequence[Sample]) -> Report:
    """Build and plan with such caches."""
    report = Report("read-only and other file systems")
    if reason := refusal():
        report.skipped = f"nothing can be mounted here ({reason})"
        return report
    for sample in samples:
        for name, frozen in (("a file system", _remounted), ("a folder", _bound)):
            with frozen(folder, sample) as place:
                _read_only(place, sample, f"{sample.mode}, {name} that is read-only", report)
        _elsewhere(folder, sample, report)
    return report


@contextmanager
def _remounted(folder: Path, sample: Sample) -> Iterator[Place]:
    """A finished build whose cache lies on a file system that is read-only now."""
    with Mounted(folder / "disk", 128 * MIB) as disk:
        place = _finished(Place(folder, cache=disk.folder / "cache"), sample)
        disk.read_only()
        yield place


@contextmanager
def _bound(folder: Path, sample: Sample) -> Iterator[Place]:
    """One whose cache is seen read-only, on a file system that is not."""
    made = _finished(Place(folder), sample)
    with Bound(made.cache, folder / "bound") as bound:
        yield Place(folder, cache=bound.folder)


def _finished(place: Place, sample: Sample) -> Place:
    caches.put(sample.cache, place.cache)
    caches.put(None, place.out)
    succeeded(place(*sample.words))
    return place


def _read_only(place: Place, sample: Sample, what: str, report: Report) -> None:
    wanted = caches.digests(sample.out)
    for again in ("as it is", "into a fresh output folder"):
        built = place(*sample.words)
        if report.expect(built.code == 0, f"{what}: a build, all cached, {again}: {built.told()}"):
            report.count("builds from a read-only cache")
            ran = [stage for stage, cached in built.cached.items() if not cached and stage != "model_store"]
            report.expect(not ran, f"{what}: {', '.join(ran)} ran {again}")
            found = caches.digests(place.out)
            report.expect(found == wanted, f"{what}: {again}: the output folder is not as it should be")
        planned = place("plan", *sample.words[1:])
        report.expect(planned.code == 0, f"{what}: mar plan, {again}: {planned.told()}")
        report.count("plans from a read-only cache")
        caches.put(None, place.out)
    _refused(place(*sample.older_words), f"{what}: a build that has to write", report)
    for words in (("cache", "gc"), ("cache", "verify", "--repair")):
        done = place(*words)
        report.expect(not done.broken, f"{what}: mar {' '.join(words)}: {done.told()}")
    for words in (("cache", "list"), ("cache", "verify")):
        done = place(*words)
        report.expect(done.code == 0, f"{what}: mar {' '.join(words)}: {done.told()}")


def _refused(done: Ended, what: str, report: Report) -> None:
    report.expect(done.code in (2, 3) and not done.broken, f"{what}: {done.told()}")
    report.expect(1 <= len(done.error) <= 3, f"{what}: said in {len(done.error)} lines: {done.told()}")
    report.count("builds that say that they cannot write")


def _elsewhere(folder: Path, sample: Sample, report: Report) -> None:
    """Checkpoint, cache and output folder on a file system each."""
    with Mounted(folder / "one", 128 * MIB) as one, Mounted(folder / "two", 128 * MIB) as two:
        place = Place(folder, cache=one.folder / "cache", out=two.folder / "out")
        caches.put(sample.without["download"], place.cache)
        for _ in range(2):
            built = place(*sample.words)
            what = f"{sample.mode}, cache and output on file systems of their own"
            report.expect(built.code == 0, f"{what}: {built.told()}")
            found = caches.digests(place.out)
            report.expect(found == caches.digests(sample.out), f"{what}: the output folder is not as it should be")
            report.count("builds across file systems")
        report.expect(all(built.cached.values()), f"{what}: the second build was not all cached")
