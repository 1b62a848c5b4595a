"""What is built over and over: tiny checkpoints, with a finished cache and output folder of each to start from."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support import tiny

from . import caches
from .caches import STAGES
from .command import Ended, Place

TASK = "seq_classification"

# The wide one's archive has some 13 MB, so that there is something to be cut in the middle of.
SHAPES: dict[str, dict[str, Any]] = {
    "pretrained": {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 4},
    "torchscript": {},
}


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A config, built once undisturbed.

    `cache` holds it finished, and swept by `mar cache gc`; `out` its output folder, and `older` one with another
    archive of the same name. `without[STAGE]` is a cache that lacks what that stage and those after it made, but for
    verify's result: that belongs to the archive's bytes, so a build that makes others has to verify them.
    """

    mode: str
    checkpoint: Path
    words: tuple[str, ...]
    cache: Path
    out: Path
    older: Path
    sha256: str
    older_sha256: str
    seconds: dict[str, float]
    without: dict[str, Path] = field(repr=False)

    @property
    def older_words(self) -> tuple[str, ...]:
        """What builds `older`."""
        return (*self.words, *OLDER)

    @property
    def archive(self) -> str:
        """The archive's path in an output folder."""
        return f"model-store/{self.mode}.mar"


OLDER = ("--set", "archive.version=0.9")


def prepare(folder: Path, mode: str) -> Sample:
    """Make a checkpoint and build it in `folder`. AssertionError if the command cannot."""
    checkpoint = tiny.save(folder / "checkpoint", "bert", TASK, **SHAPES[mode])
    words = ("build", "--task", TASK, "--model", str(checkpoint), "--save-mode", mode, "--set", f"archive.name={mode}")
    place = Place(folder)
    first = succeeded(place(*words))
    seconds = {stage: lasted(first, stage) for stage in STAGES}
    older = Place(folder / "older")
    caches.put(place.cache, older.cache)
    other = succeeded(older(*words, *OLDER))
    # Under another name, since the cache knows the digests of what it put under this one.
    finished = place.out.rename(folder / "finished")
    succeeded(place("cache", "gc"))
    without = {stage: _without(place, stage) for stage in STAGES}
    return Sample(
        mode=mode,
        checkpoint=checkpoint,
        words=words,
        cache=place.cache,
        out=finished,
        older=older.out,
        sha256=first.archive["sha256"],
        older_sha256=other.archive["sha256"],
        seconds=seconds,
        without=without,
    )


def _without(place: Place, stage: str) -> Path:
    less = Place(place.folder / f"without-{stage}")
    caches.put(place.cache, less.cache)
    later = STAGES[STAGES.index(stage) :]
    caches.forget(less.cache, [name for name in later if name != "verify" or stage == "verify"])
    succeeded(less("cache", "gc"))
    shutil.rmtree(less.folder / "hf", ignore_errors=True)
    return less.cache


def lasted(done: Ended, stage: str) -> float:
    """Seconds from a stage's first line to its last."""
    span = done.span(stage)
    assert span is not None, f"{stage} did not run: {done.told()}"
    return span[1] - span[0]


def succeeded(done: Ended) -> Ended:
    """The same. AssertionError if the command failed."""
    assert done.code == 0, done.told()
    return done
