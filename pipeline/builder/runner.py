"""Takes a config through the stages. `plan` and `run` ask the same `status` whether a result is there, and why not."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar

from ..cache.digests import changed
from ..cache.store import Damaged, Record
from ..errors import StageError
from ..files.tree import Tree
from ..sources.source import NotReadYet, Progress
from .build import Build, Job, Result, StageName, State
from .failures import explained
from .stage import Kept, Permit, Placing, Stage
from .stages import STAGES, download, locking
from .status import Reason, Status, status, unread

T = TypeVar("T")

ATTEMPTS = 3
"""How often a build whose cache turns out to be damaged is begun."""


@dataclass(frozen=True)
class Done:
    """A stage that was gone through: `seconds` it took, and whether its result was there."""

    stage: StageName
    cached: bool
    seconds: float
    key: str | None
    reasons: tuple[Reason, ...]


@dataclass(frozen=True)
class Outcome:
    """What is known after a build, and the stages that it went through."""

    state: State
    stages: list[Done] = field(default_factory=list)


class Events(Protocol):
    """Who is told how a build goes."""

    def started(self, build: Build, status: Status) -> None:
        """A stage begins, since its result is not cached."""

    def progress(self, what: str, done: int, total: int | None) -> None:
        """So many bytes are done, of a total where it is known."""

    def finished(self, build: Build, done: Done) -> None:
        """A stage has ended, or was cached."""


def plan(build: Build) -> list[Status]:
    """Every stage's status; nothing is run or fetched. Raises InputError, StageError."""
    return _retried(build, lambda: _plan(State(build)))


def _plan(state: State) -> list[Status]:
    return [_planned(state, stage) for stage in STAGES]


def _planned(state: State, stage: Stage | Placing) -> Status:
    def refuse(reason: NotReadYet) -> Progress:
        raise reason

    try:
        _prepare(state, stage, refuse)
    except NotReadYet as reason:
        return unread(stage.name, reason)
    now = status(state, stage)
    if now.record is not None:
        _accept(state, now, now.record)
    return now


def run(build: Build, events: Events, until: StageName | None = None) -> Outcome:
    """Take the config through its stages, all of them or `until` one. Raises MarError; what was finished stays
    cached."""
    return _retried(build, lambda: _run(State(build), events, until))


def _retried(build: Build, work: Callable[[], T]) -> T:
    """Do the work. Where a blob turns out to be damaged, which deletes it, do it again, so that it is rebuilt."""
    for _ in range(ATTEMPTS):
        try:
            return work()
        except Damaged as damaged:
            what = damaged
    raise StageError(
        f"{what} was damaged {ATTEMPTS} times while it was used.",
        f"The disk or the memory of this machine may be at fault (the cache is {build.store.root}).",
        "Look at `dmesg`, or use --cache for another disk.",
    )


def _run(state: State, events: Events, until: StageName | None) -> Outcome:
    build, outcome = state.build, Outcome(state)
    for stage in STAGES:
        with explained(build, stage.name):
            start = time.perf_counter()
            now = _advance(state, stage, events)
            outcome.stages.append(Done(stage.name, now.cached, time.perf_counter() - start, now.key, now.reasons))
            events.finished(build, outcome.stages[-1])
        if stage.name == until:
            break
    return outcome


def _advance(state: State, stage: Stage | Placing, events: Events) -> Status:
    """Have a stage's result, cached or made now."""
    started: list[Status] = []

    def permit(reason: NotReadYet) -> Progress:
        if not started:
            started.append(unread(stage.name, reason))
            events.started(state.build, started[0])
        return events.progress

    _prepare(state, stage, permit)
    now = status(state, stage)
    if started:
        now = replace(now, reasons=started[0].reasons)
    elif not now.cached:
        events.started(state.build, now)
    if isinstance(stage, Stage):
        return _cached(state, stage, now, events)
    if now.cached:
        return now
    forced = stage.name in state.build.options.forced
    return replace(now, cached=not stage.place(state.inputs(stage.name, stage.inputs), forced))


def _prepare(state: State, stage: Stage | Placing, permit: Permit) -> None:
    if isinstance(stage, Stage) and stage.prepare is not None:
        state.checkpoint = stage.prepare(state.build, permit)


def _cached(state: State, stage: Stage, now: Status, events: Events) -> Status:
    """Have a stage's result in the cache, and take it into the state."""
    kept = None
    if now.record is None:
        now, kept = _make(state, stage, now, events)
    assert now.record is not None
    _accept(state, now, now.record, kept)
    state.build.store.touch(now.record, state.build.subject)
    return now


def _accept(state: State, now: Status, record: Record, kept: Kept | None = None) -> None:
    """Take a result into the state, where later stages find it; `kept` is what it has of a run just now."""
    assert now.material is not None
    tree, places = state.build.store.tree(record.tree), state.inputs(now.stage, now.material["inputs"]).places
    if kept is not None:
        places |= kept.places
    state.results[now.stage] = Result(
        tree=tree,
        params=now.material["params"],
        places=places or dict(record.places),
        is_fresh=kept is not None,
    )
    if now.stage == download.STAGE.name:
        assert state.checkpoint is not None
        state.drift = locking.drift(state.build, state.checkpoint, tree)


def _make(state: State, stage: Stage, now: Status, events: Events) -> tuple[Status, Kept | None]:
    """Run a stage, unless another build has made its result while we waited for the lock: then there is no Kept."""
    assert now.key is not None
    assert now.material is not None
    build, store = state.build, state.build.store
    inputs = state.inputs(stage.name, stage.inputs)
    with store.lock(now.key), store.scratch() as scratch:
        record = None if stage.name in build.options.forced else store.find(stage.name, now.key, inputs.places)
        if record is not None:
            return replace(now, cached=True, reasons=(Reason("raced"),), record=record), None
        job = Job(inputs, now.material["params"], scratch / "out", scratch / "work", events.progress)
        job.folder.mkdir()
        job.scratch.mkdir()
        kept = stage.run(job)
        entries, places = list(kept.entries), {**inputs.places, **kept.places}
        _refuse_changes(state)
        tree = Tree.of([*entries, *store.take(job.folder, job.digested)])
        record = Record(
            key=now.key,
            stage=stage.name,
            tree=tree.digest,
            material=now.material,
            subject=build.subject,
            model=build.config.model.name,
            places={entry.path: places[entry.path] for entry in entries if not store.blob(entry.sha256).exists()},
        )
        store.commit(record, tree)
    return replace(now, record=record), kept


def _refuse_changes(state: State) -> None:
    """Raises StageError if the checkpoint's files are not those that the build began with."""
    checkpoint = state.results.get(download.STAGE.name)
    if checkpoint is not None:
        for entry in checkpoint.tree:
            if state.build.store.locate(entry, checkpoint.places) is None:
                raise changed(entry)
