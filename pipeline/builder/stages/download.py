"""Download: the checkpoint's files and their digests, from wherever its source has them. Files of this machine, and of
the Hugging Face cache, stay where they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from ... import sources
from ...errors import InputError, StageError
from ...files import pointers
from ...model import checkpoint, lock
from ...model.address import ModelSource, find, is_commit
from ...model.remote_code import with_code
from ...model.selection import Base, Selection, has_vocabulary, select, with_base
from ...sources.hub.repository import Hub
from ...sources.source import Fetched, NotReadYet, Source, read_text
from ..build import Build, Checkpoint, Inputs, Job, Part
from ..stage import Kept, Permit, Stage

T = TypeVar("T")


def parts(build: Build, permit: Permit, *, to_lock: bool = False) -> tuple[Part, ...]:
    """The model's source with the files that are needed of it, and its base model's. What is `to_lock` may have code of
    its own that can still change. Raises NotReadYet as `permit` does, InputError, StageError."""
    model = build.config.model
    if not to_lock:
        _refuse_moving_code(build, model, build.config.revision, "handler.revision")
    source = _source(build, 0, model, build.config.revision)
    chosen = _select(build, source, permit)
    if chosen.base is None:
        return (Part(source, chosen.files),)
    base, revision = _base_of(build, chosen.base)
    if not to_lock:
        _refuse_moving_code(build, base, revision, "handler.base_revision")
    around = _source(build, 1, base, revision)
    theirs = _select(build, around, permit, tokenizer=not has_vocabulary(chosen.files))
    if theirs.base is not None:
        raise InputError(
            f"{base.name}, the base model of {model.name}, is an adapter itself.",
            fix="Merge it into its base (peft's merge_and_unload()), save that, and set handler.base_model to it.",
        )
    return Part(source, chosen.files), Part(around, with_base(chosen, theirs).files)


def _base_of(build: Build, base: Base) -> tuple[ModelSource, str | None]:
    """The model that an adapter was trained on, and its revision, by the config or else by the adapter. Raises
    InputError."""
    config = build.config
    name = config.handler.base_model or base.name
    if not name:
        raise InputError(
            f"{config.model.name} is an adapter whose adapter_config.json names no base model.",
            fix="Set handler.base_model to the model that it was trained on.",
        )
    # The adapter's revision applies only to the base model that the adapter names.
    revision = config.handler.base_revision or (base.revision if name == base.name else None)
    folders = [Path()] if config.path is None else [config.path.parent, Path()]
    foreign = config.model.path is None and not config.handler.base_model
    if foreign:
        folders = []
    elif config.model.path is not None and not config.handler.base_model:
        folders.insert(0, config.model.path)
    try:
        source = find(name, folders)
    except ValueError as error:
        raise InputError(
            f"The base model of {config.model.name} cannot be found: {error}.",
            "An adapter names its base model by where it was on the machine that trained it.",
            "Set handler.base_model to where it is now: a folder, or a Hub id.",
        ) from None
    if foreign and source.kind != "hub":
        raise InputError(
            f"{config.model.name} names the base model {name}, which is not a Hub id.",
            "A model from elsewhere must not choose what this machine reads, or whom it asks.",
            "Set handler.base_model to it, if that is meant.",
        )
    return source, revision or source.revision


def _source(build: Build, number: int, model: ModelSource, revision: str | None) -> Source:
    locked = None
    if build.lock is not None and build.config.path is not None:
        locked = build.lock.part(number, lock.path_of(build.config.path))
        if model.repo is not None:
            revision = build.lock.commit(number, model.repo) or revision
    return sources.of(build.store, build.options.offline, model, revision, locked)


def _select(build: Build, source: Source, permit: Permit, *, tokenizer: bool = True) -> Selection:
    """The files to take of a source."""

    def text(path: str) -> str:
        return _read(source, permit, lambda: read_text(source, path))

    handler = build.config.handler
    present = _read(source, permit, source.sizes)
    chosen = select(present, source.where, text, pickles=handler.allow_pickle, tokenizer=tokenizer)
    return with_code(chosen, present, source.where, text) if handler.trust_remote_code else chosen


def _read(source: Source, permit: Permit, ask: Callable[[], T]) -> T:
    """What `ask` reads of a source; if `permit` allows the fetch that it takes, the source may fetch from then on."""
    try:
        return ask()
    except NotReadYet as reason:
        permit(reason)
        source.may_fetch = True
        return ask()


def _refuse_moving_code(build: Build, model: ModelSource, revision: str | None, setting: str) -> None:
    """Raises InputError if the model's own code is to run, and is not pinned."""
    if not build.config.handler.trust_remote_code or build.lock is not None or is_commit(revision):
        return
    if model.kind not in ("folder", "starter"):
        where = f"{model.name} at {revision or 'main'}" if model.kind == "hub" else model.name
        commit = f"Set {setting} to a commit (40 hexadecimal digits), or lock it" if model.kind == "hub" else "Lock it"
        raise InputError(
            f"handler.trust_remote_code is set, and {where} can change any day.",
            "Code that runs has to be the code that somebody has read.",
            f"{commit}: {build.config.lock_command}",
        )


def prepare(build: Build, permit: Permit) -> Checkpoint:
    """Choose the files of the checkpoint, and find out what pins their contents. Raises NotReadYet as `permit` does,
    InputError, StageError."""
    resolved = parts(build, permit)
    first, *base = [_identity(part, permit) for part in resolved]
    return Checkpoint(resolved, {**first, **({"base": base[0]} if base else {})})


def _identity(part: Part, permit: Permit) -> dict[str, Any]:
    try:
        return part.source.identity(part.files)
    except NotReadYet as reason:
        part.source.fetch(part.files, permit(reason))
    try:
        return part.source.identity(part.files)
    except NotReadYet as reason:
        raise StageError(
            f"{part.source.where} changed while it was read: {reason}.",
            "Something wrote to the checkpoint's folder, a training run perhaps.",
            "Build again when it is finished.",
        ) from None


def params(inputs: Inputs) -> dict[str, Any]:
    """A commit, or digests, and what may be loaded."""
    handler = inputs.config.handler
    flags = {name: True for name in ("allow_pickle", "trust_remote_code") if getattr(handler, name)}
    return {**inputs.checkpoint.identity, **flags}


def run(job: Job) -> Kept:
    """The entries of the checkpoint's files, and where those lie that are not in the store."""
    store, parts = job.build.store, job.inputs.checkpoint.parts
    fetched: list[Fetched] = []
    for part in parts:
        part.source.may_fetch = True
        theirs = part.source.fetch(part.files, job.progress)
        _refuse_pointers(job, part, theirs)
        fetched += theirs
    for part in parts:
        if isinstance(part.source, Hub):
            part.source.keep_reference()
    entries = [file.entry for file in fetched]
    places = {file.entry.path: file.place for file in fetched if file.place is not None}
    for entry in entries:
        if entry.path.endswith(".safetensors"):
            checkpoint.tensors(store.use(entry, places), entry.path)
        elif entry.path == checkpoint.CONFIG:
            names = [entry.path for entry in entries]
            checkpoint.refuse_other_weights(store.use(entry, places).read_bytes(), names)
    return Kept(entries, places)


def _refuse_pointers(job: Job, part: Part, fetched: list[Fetched]) -> None:
    """Raises InputError for a Git LFS pointer among the files of a part."""
    for file in fetched:
        if file.entry.size <= pointers.LONGEST:
            places = {} if file.place is None else {file.entry.path: file.place}
            content = job.build.store.use(file.entry, places).read_bytes()
            pointers.refuse(content, f"{part.source.where}/{part.files[file.entry.path]}")


STAGE = Stage(
    name="download",
    version=3,
    inputs=(),
    params=params,
    tools=lambda _inputs: (),
    run=run,
    prepare=prepare,
)
