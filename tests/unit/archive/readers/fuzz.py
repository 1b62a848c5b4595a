"""Many changed archives, each read by this program and by every Java here: what is accepted is read alike."""

from __future__ import annotations

import hashlib
import random
import shutil
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from mar_pipeline.archive.reader import Archive
from mar_pipeline.errors import InputError
from tests.unit.archive.readers import tars, zips
from tests.unit.archive.readers.java import Java

_AT_ONCE = 50

KINDS = {".mar": zips.changed, ".tar.gz": tars.changed}


@dataclass
class Figures:
    """How many archives were accepted and refused, and the paths of those that are read otherwise than by Java."""

    accepted: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    java_reads: Counter[str] = field(default_factory=Counter)  # of those that are refused
    differing: list[str] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)

    def text(self) -> str:
        lines = []
        for kind in KINDS:
            lines.append(
                f"{kind}: {self.accepted[kind]} accepted, {self.refused[kind]} refused (of these Java reads "
                f"{self.java_reads[kind]}), {sum(path.endswith(kind) for path in self.differing)} read otherwise"
            )
        return "\n".join(lines)


def ours(archive: Path, scratch: Path) -> dict[str, str] | str:
    """SHA-256 by path of what this program unpacks; why it refuses the archive."""
    try:
        folder = Archive(archive).unpack(scratch)
    except InputError as error:
        return error.what
    files = (file for file in folder.rglob("*") if file.is_file())
    found = {file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    assert found == Archive(archive).digests()
    return found


def run(seeds: Sequence[int], javas: Sequence[Path], classes: Path, scratch: Path) -> Figures:
    """Make an archive of each kind by each seed, and compare. Those that differ are left in `scratch`."""
    figures = Figures()
    with ExitStack() as stack:
        processes = [stack.enter_context(Java(java, classes, scratch)) for java in javas]
        for first in range(0, len(seeds), _AT_ONCE):
            _compare(seeds[first : first + _AT_ONCE], processes, scratch, figures)
    return figures


def _compare(seeds: Sequence[int], javas: Sequence[Java], scratch: Path, figures: Figures) -> None:
    archives = [scratch / f"{seed}{kind}" for seed in seeds for kind in KINDS]
    for archive in archives:
        seed, kind = archive.name.split(".", 1)
        archive.write_bytes(KINDS[f".{kind}"](random.Random(int(seed))))
    told = [java.files(archives) for java in javas]
    for archive, *views in zip(archives, *told, strict=True):
        kind = archive.name[archive.name.index(".") :]
        place = scratch / "ours"
        found = ours(archive, place)
        shutil.rmtree(place, ignore_errors=True)
        if isinstance(found, str):
            figures.refused[kind] += 1
            figures.java_reads[kind] += any(files is not None for files in views)
            figures.reasons[found.replace(str(archive), "").strip(": ")[:60]] += 1
        else:
            figures.accepted[kind] += 1
            if any(files != found for files in views):
                figures.differing.append(str(archive))
                continue
        archive.unlink()
