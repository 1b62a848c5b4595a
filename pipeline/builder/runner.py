"""Walks a config through the stages. `plan` and `run` ask the same `status` whether a result is there, and why not."""

from __future__ import annotations

import errno
import json
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol, TypeVar

from ..cache.digests import changed
from ..cache.store import Damaged, Record, key_of
from ..errors import StageError, disk_is_full
from ..files.tree import Tree, canonical
from ..sources.source import NotReadYet
from .stage import Build, Job, Placing, Stage, versions
from .stages import STAGES, download, locking, model_store

Found = TypeVar("Found")

NAMES = tuple(stage.name for stage in STAGES)


@dataclass(frozen=True)
class Status:
    """Whether a stage's result is there. `key` is None where it depends on a stage that has to run first."""

    stage: str
    key: str | None
    cached: bool
    reasons: tuple[str, ...]
    record: Record | None = None
    material: dict[str, Any] | None = None


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


def status(build: Build, stage: Stage | Placing, force: Collection[str] = ()) -> Status:
    """The one answer to whether a stage has to run. Raises InputError if the config and the checkpoint contradict."""
    absent = [name for name in stage.inputs if name not in build.trees]
    if absent:
        return Status(stage.name, None, False, (f"{absent[-1]} runs first",))
    if isinstance(stage, Placing):
        key, reasons = stage.status(build)
        reasons = ("forced",) if stage.name in force else reasons
        return Status(stage.name, key, not reasons, reasons)
    try:
        build.params[stage.name] = stage.params(build)
    except NotReadYet as reason:
        return Status(stage.name, None, False, (str(reason),))
    material = {
        "stage": stage.name,
        "version": stage.version,
        "params": build.params[stage.name],
        "tools": versions(stage.tools(build)),
        "inputs": {name: build.trees[name].digest for name in stage.inputs},
    }
    key = key_of(material)
    if stage.name in force:
        return Status(stage.name, key, False, ("forced",), None, material)
    record = build.store.find(stage.name, key, build.places)
    if record is not None:
        return Status(stage.name, key, True, (), record, material)
    return Status(stage.name, key, False, _why(build, stage.name, key, material), None, material)


def _why(build: Build, stage: str, key: str, material: dict[str, Any]) -> tuple[str, ...]:
    before = build.store.latest(stage, build.subject)
    if before is None:
        return ("not built before",)
    if key_of(before) == key:
        return ("its cached result is gone, or is damaged",)
    # As it is kept: in JSON there are no tuples, and no numbers for keys.
    old, new = _flat(before), _flat(json.loads(canonical(material)))
    return tuple(
        _change(name, old, new)
        for name in sorted(old.keys() | new.keys())
        if name not in old or name not in new or old[name] != new[name]
    )


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    if isinstance(value, dict):
        return {
            key: item for k, v in value.items() for key, item in _flat(v, f"{name}.{k}" if name else str(k)).items()
        }
    return {name: value}


def _change(name: str, old: dict[str, Any], new: dict[str, Any]) -> str:
    kind, _, rest = name.partition(".")
    if kind in ("stage", "version"):
        return "mar-pipeline does this stage in another way now"
    labels = {
        "inputs": f"the result of {rest}",
        "params": rest.removeprefix("settings."),
        "tools": f"version of {rest}",
    }
    return f"{labels[kind]} {_shown(old, name)} -> {_shown(new, name)}"


def _shown(values: dict[str, Any], name: str) -> str:
    if name not in values:
        return "(none)"
    value = values[name]
    digest = isinstance(value, str) and len(value) == 64
    return str(value)[:12] if digest else json.dumps(value, ensure_ascii=False) if value == "" else str(value)


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


@contextmanager
def explained(build: Build, stage: str) -> Iterator[Build]:
    """What the disk says, in our words."""
    try:
        yield build
    except OSError as error:
        if disk_is_full(error):
            where = error.filename2 or error.filename or (build.out if stage == model_store.NAME else build.store.root)
            raise StageError(
                f"The disk is full: {stage} could not write to {where}.",
                f"The cache is {build.store.root}, the output {build.out}.",
                "Free some space (`mar cache gc --max-size 5GB`), or use --cache for another disk; then build again.",
            ) from None
        unusable = (errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENOENT)
        ours = str(error.filename or "").startswith((str(build.out), str(build.store.root)))
        if ours and (isinstance(error, PermissionError) or error.errno in unusable):
            raise StageError(
                f"{stage} cannot write to {error.filename} ({error.strerror}).",
                fix="Make it writable, or use --cache and --out for folders that are.",
            ) from None
        if isinstance(error, PermissionError):
            raise StageError(
                f"{stage} may not use {error.filename} ({error.strerror}).", fix="Give this user the right to it."
            ) from None
        raise
