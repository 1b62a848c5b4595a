"""Single bytes of the cache that change by themselves, as disks have it: no archive is ever wrong for it."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from pathlib import Path

from tests.support.stand_ins import hub as hub_stand_in

from . import caches
from .command import Place
from .report import Report, side_by_side
from .samples import TASK, Sample, succeeded

REPO = "org/tiny"

TURNS = ("blobs", "trees", "blobs", "keys", "latest", "blobs", "facts", "files")
"""The parts of the cache, in turn. Most of a cache is blobs."""

FORGOTTEN = ((), ("archive",), ("handler", "archive"), ("serialize", "handler", "archive"))


@dataclass(frozen=True, kw_only=True)
class Change:
    """A byte of a file of the cache: `bit` of it turned, or another one in its place (None). `quietly`: with the file's
    time as it was, so that nothing but its contents tells."""

    part: str
    largest: bool
    """Of the part's largest file, which among blobs is the archive; or of any."""
    place: float
    bit: int | None
    quietly: bool
    repaired_first: bool
    """Whether `mar cache verify --repair` comes before the next build, or after it."""
    forgotten: tuple[str, ...]
    """Stages that the next build has to do again, out of what the cache holds for them."""
    seed: int


def run(folder: Path, sample: Sample, *, places: int, lanes: int, seed: int) -> Report:
    """So many changes, each in a copy of a finished cache."""
    report = Report("damage")
    chance = random.Random(seed)
    changes = [
        Change(
            part=TURNS[number % len(TURNS)],
            largest=chance.random() < 0.4,
            place=chance.random(),
            bit=chance.choice([None, *range(8)]),
            quietly=number // len(TURNS) % 2 == 0,
            repaired_first=chance.random() < 0.5,
            forgotten=FORGOTTEN[number // (2 * len(TURNS)) % len(FORGOTTEN)],
            seed=chance.randrange(2**32),
        )
        for number in range(places)
    ]
    with hub_stand_in.running() as hub:
        hub.add(REPO, sample.checkpoint)
        env = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": hub.address, "HF_HOME": str(folder / "hf")}
        words = ("build", "--task", TASK, "--model", REPO, "--save-mode", sample.mode)
        whole = Place(folder / "whole", env=env)
        # A facts/ note comes of a model of the Hub only.
        wanted = succeeded(whole(*words)).archive
        ways = [Place(folder / f"lane{number}", env=env) for number in range(lanes)]
        side_by_side(lambda lane, change: _damage(ways[lane], whole, words, wanted, change, report), changes, lanes)
    return report


def _damage(
    lane: Place, whole: Place, words: tuple[str, ...], wanted: dict[str, str], change: Change, report: Report
) -> None:
    caches.put(whole.cache, lane.cache)
    caches.put(None, lane.out)
    what = _changed(lane.cache, change)
    report.count(f"places in {change.part}")
    report.count("quietly" if change.quietly else "with a new time")

    looked = lane("cache", "verify")
    named = looked.code != 0
    report.expect(not looked.broken and looked.code in (0, 2), f"{what}: mar cache verify: {looked.told()}")
    report.count("named by verify", named)
    if change.repaired_first:
        _repair(lane, what, report)
    caches.forget(lane.cache, change.forgotten)
    built = lane(*words)
    archive = lane.out / "model-store" / Path(wanted["path"]).name
    digest = caches.digests(lane.out).get(archive.relative_to(lane.out).as_posix())
    report.expect(not built.broken, f"{what}: the build: {built.told()}")
    report.expect(digest in (None, wanted["sha256"]), f"{what}: the archive is a wrong one")
    if built.code != 0 or digest is None:
        report.count("refused by the build")
        report.expect(named, f"{what}: neither verify finds it, nor does the build succeed: {built.told()}")
    elif named or built.warned:
        report.count("found")
    else:
        report.count("harmless")
    report.count("warned of by the build", built.warned)
    if not change.repaired_first:
        _repair(lane, what, report)


def _repair(lane: Place, what: str, report: Report) -> None:
    repaired = lane("cache", "verify", "--repair")
    report.expect(repaired.code == 0, f"{what}: mar cache verify --repair: {repaired.told()}{repaired.out[-300:]}")
    clean = lane("cache", "verify")
    report.expect(clean.code == 0, f"{what}: still damaged after --repair: {clean.told()}{clean.out[-300:]}")


def _changed(cache: Path, change: Change) -> str:
    """Change a byte of a file; what was done."""
    chance = random.Random(change.seed)
    files = sorted(caches.files(cache, change.part), key=lambda file: file.stat().st_size)
    file = files[-1] if change.largest else chance.choice(files)
    before, data = file.stat(), bytearray(file.read_bytes())
    at = int(change.place * len(data))
    old = data[at]
    data[at] = old ^ (1 << change.bit) if change.bit is not None else (old + 1 + chance.randrange(255)) % 256
    file.chmod(0o644)
    file.write_bytes(data)
    file.chmod(before.st_mode)
    if change.quietly:
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    how = "quietly" if change.quietly else "with a new time"
    order = "repaired, then built" if change.repaired_first else "built, then repaired"
    again = f", {' and '.join(change.forgotten)} done again" if change.forgotten else ""
    return f"{file.relative_to(cache)}, byte {at} of {len(data)}, {old:#04x} -> {data[at]:#04x}, {how}, {order}{again}"
