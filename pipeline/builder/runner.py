"""Walks a config through the stages. `plan` and `run` ask the same `status` whether a result is there, and why not."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol, TypeVar

from ..cache.digests import changed
from ..cache.store import Damaged, Record
from ..errors import StageError
from ..files.tree import Tree
from .build import Build, Job
from .failures import explained
from .stage import Stage
from .stages import STAGES, download, locking
from .status import Status, status

Found = TypeVar("Found")

NAMES = tuple(stage.name for stage in STAGES)


@dataclass(frozen=True)
class Done:
    """A stage that was gone through: `seconds` it took, and whether its result was there."""

    stage: str
    cached: bool
    seconds: float
    key: str | None
    reasons: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "seconds": round(self.seconds, 3), "reasons": list(self.reasons)}


class Events(Protocol):
    """Who is told how a build goes."""

    def started(self, build: Build, status: Status) -> None: ...

    def progress(self, what: str, done: int, total: int | None) -> None: ...

    def finished(self, build: Build, done: Done) -> None: ...


def plan(build: Build, force: Collection[str] = ()) -> list[Status]:
    """Every stage's status, doing nothing."""
    return _again(build, lambda: _plan(build, force))


def _plan(build: Build, force: Collection[str]) -> list[Status]:
    found = []
    for stage in STAGES:
        now = status(build, stage, force)
        found.append(now)
        if now.record is not None:
            _accept(build, stage.name, now.record)
    return found


def _accept(build: Build, name: str, record: Record) -> None:
    build.trees[name] = build.store.tree(record.tree)
    build.places = build.places or dict(record.places)
    if name == download.STAGE.name:
        locking.check_lock(build)


def run(build: Build, force: Collection[str], events: Events) -> list[Done]:
    """Bring the config through all its stages. Raises MarError; what was finished stays cached."""
    return _again(build, lambda: _run(build, force, events))


TRIES = 3


def _again(build: Build, work: Callable[[], list[Found]]) -> list[Found]:
    """Do it, and again where a result was damaged: that is gone then, so that what needs it is made anew."""
    for _ in range(TRIES):
        build.begin()
        try:
            return work()
        except Damaged as damaged:
            what = damaged
    raise StageError(
        f"{what} was damaged {TRIES} times while it was used.",
        f"The disk or the memory of this machine may be at fault (the cache is {build.store.root}).",
        "Look at `dmesg`, or use --cache for another disk.",
    )


def _run(build: Build, force: Collection[str], events: Events) -> list[Done]:
    done: list[Done] = []
    for stage in STAGES:
        with explained(build, stage.name):
            start = time.perf_counter()
            now = status(build, stage, force)
            if not now.cached:
                events.started(build, now)
            if isinstance(stage, Stage):
                now = _cached(build, stage, now, events, force)
            elif not now.cached:
                now = replace(now, cached=not stage.place(build, stage.name in force))
            done.append(Done(stage.name, now.cached, time.perf_counter() - start, now.key, now.reasons))
            events.finished(build, done[-1])
    return done


def _cached(build: Build, stage: Stage, now: Status, events: Events, force: Collection[str]) -> Status:
    """Have a stage's result in the cache, and take it into the build."""
    if now.material is None and stage.prepare is not None:
        stage.prepare(build, events.progress)
        now = replace(status(build, stage, force), reasons=now.reasons)
    if now.record is None:
        now = _make(build, stage, now, events, force)
    assert now.record is not None
    _accept(build, stage.name, now.record)
    build.store.touch(now.record, build.subject)
    return now


def _make(build: Build, stage: Stage, now: Status, events: Events, force: Collection[str]) -> Status:
    """Run a stage, unless another build has made its result while we waited for the lock."""
    assert now.key is not None
    assert now.material is not None
    store = build.store
    with store.lock(now.key), store.scratch() as scratch:
        record = None if stage.name in force else store.find(stage.name, now.key, build.places)
        if record is not None:
            return Status(stage.name, now.key, True, ("another build made it just now",), record, now.material)
        job = Job(build, scratch / "out", scratch / "work", events.progress)
        job.folder.mkdir()
        job.scratch.mkdir()
        kept = list(stage.run(job))
        _unchanged(build)
        tree = Tree.of([*kept, *store.take(job.folder, job.digested)])
        record = Record(
            key=now.key,
            stage=stage.name,
            tree=tree.digest,
            material=now.material,
            subject=build.subject,
            model=build.config.model.name,
            places={entry.path: build.places[entry.path] for entry in kept if not store.blob(entry.sha256).exists()},
        )
        store.commit(record, tree)
        build.made.add(stage.name)
    return Status(stage.name, now.key, False, now.reasons, record, now.material)


def _unchanged(build: Build) -> None:
    """Raises StageError if the checkpoint's files are not those that the build began with."""
    for entry in build.trees.get("download", Tree(())):
        if build.store.locate(entry, build.places) is None:
            raise changed(entry)
