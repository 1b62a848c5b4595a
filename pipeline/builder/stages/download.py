"""Download: the checkpoint's files and their digests, from wherever its source has them. Files of this machine, and of
the Hugging Face cache, stay where they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ... import sources
from ...errors import InputError
from ...files.tree import Entry
from ...model import checkpoint, lock
from ...model.address import ModelSource, find, is_commit
from ...model.remote_code import with_code
from ...model.selection import Base, Selection, has_vocabulary, select, with_base
from ...sources.hub.repository import Hub
from ...sources.source import NotReadYet, Progress, Source
from ..build import Build, Job
from ..stage import Stage


@dataclass(frozen=True)
class Part:
    """Files of one source: path in the checkpoint -> path there."""

    source: Source
    files: Mapping[str, str]


def parts(build: Build, *, may_fetch: bool = False, to_lock: bool = False) -> list[Part]:
    """The model's source with what is needed of it, and its base model's. Raises NotReadYet unless it `may_fetch`,
    InputError, StageError. What is `to_lock` may have code of its own that can still change."""
    model = build.config.model
    if not to_lock:
        _refuse_moving_code(build, model, build.config.revision, "handler.revision")
    if not build.sources:
        build.sources.append(_source(build, 0, model, build.config.revision))
    found = _select(build, build.sources[0], may_fetch)
    if found.base is None:
        return [Part(build.sources[0], found.files)]
    base, revision = _base_of(build, found.base)
    if not to_lock:
        _refuse_moving_code(build, base, revision, "handler.base_revision")
    if len(build.sources) == 1:
        build.sources.append(_source(build, 1, base, revision))
    around = _select(build, build.sources[1], may_fetch, tokenizer=not has_vocabulary(found.files))
    if around.base is not None:
        raise InputError(
            f"{base.name}, the base model of {model.name}, is an adapter itself.",
            fix="Merge it into its base (peft's merge_and_unload()), save that, and set handler.base_model to it.",
        )
    return [Part(build.sources[0], found.files), Part(build.sources[1], with_base(found, around).files)]


def _base_of(build: Build, base: Base) -> tuple[ModelSource, str | None]:
    """The model that an adapter was trained on, and its revision: what the config says, else what the adapter says.
    Raises InputError."""
    config = build.config
    name = config.handler.base_model or base.name
    if not name:
        raise InputError(
            f"{config.model.name} is an adapter whose adapter_config.json names no base model.",
            fix="Set handler.base_model to the model that it was trained on.",
        )
    # A revision of the model that the adapter names is none of another.
    revision = config.handler.base_revision or (base.revision if name == base.name else None)
    folders = [Path()] if config.path is None else [config.path.parent, Path()]
    foreign = config.model.path is None and not config.handler.base_model
    if foreign:
        folders = []
    elif config.model.path is not None and not config.handler.base_model:
        folders.insert(0, config.model.path)
    try:
        found = find(name, folders)
    except ValueError as error:
        raise InputError(
            f"The base model of {config.model.name} cannot be found: {error}.",
            "An adapter names its base as the machine had it that it was trained on.",
            "Set handler.base_model to where it is now: a folder, or a Hub id.",
        ) from None
    if foreign and found.kind != "hub":
        raise InputError(
            f"{config.model.name} names {name} for its base model, which is none of the Hub's.",
            "What comes from elsewhere is not to say what this machine reads and whom it asks.",
            "Set handler.base_model to it, if that is meant.",
        )
    return found, revision or found.revision


def _source(build: Build, number: int, model: ModelSource, revision: str | None) -> Source:
    locked = None
    if build.lock is not None and build.config.path is not None:
        locked = build.lock.part(number, lock.path_of(build.config.path))
        if model.repo is not None:
            revision = build.lock.commit(number, model.repo) or revision
    return sources.of(build.store, build.offline, model, revision, locked)


def _select(build: Build, source: Source, may_fetch: bool, *, tokenizer: bool = True) -> Selection:
    handler, source.may_fetch = build.config.handler, may_fetch
    present = source.sizes()
    found = select(present, source.where, source.text, pickles=handler.allow_pickle, tokenizer=tokenizer)
    return with_code(found, present, source.where, source.text) if handler.trust_remote_code else found


def _refuse_moving_code(build: Build, model: ModelSource, revision: str | None, setting: str) -> None:
    """Raises InputError where the code that would run can be another one tomorrow."""
    if not build.config.handler.trust_remote_code or build.lock is not None or is_commit(revision):
        return
    if model.kind not in ("folder", "starter"):
        where = f"{model.name} at {revision or 'main'}" if model.kind == "hub" else model.name
        commit = f"Set {setting} to a commit (40 hexadecimal digits), or lock it" if model.kind == "hub" else "Lock it"
        raise InputError(
            f"handler.trust_remote_code is set, and {where} can change any day.",
            "Code that runs has to be the code that somebody has read.",
            f"{commit}: mar lock CONFIG",
        )


def params(build: Build) -> dict[str, Any]:
    """A commit, or digests. Raises NotReadYet for files that changed, InputError."""
    first, *rest = [part.source.identity(part.files) for part in parts(build)]
    handler = build.config.handler
    flags = {name: True for name in ("allow_pickle", "trust_remote_code") if getattr(handler, name)}
    return {**first, **({"base": rest[0]} if rest else {}), **flags}


def prepare(build: Build, progress: Progress) -> None:
    """Ask and read what `params` cannot do without."""
    for part in parts(build, may_fetch=True):
        try:
            part.source.identity(part.files)
        except NotReadYet:
            part.source.fetch(part.files, progress)


def run(job: Job) -> Iterable[Entry]:
    """The entries of the checkpoint's files; `build.places` are those that lie outside the store."""
    build = job.build
    found = [got for part in parts(build, may_fetch=True) for got in part.source.fetch(part.files, job.progress)]
    for source in build.sources:
        if isinstance(source, Hub):
            source.keep_reference()
    build.places = {got.entry.path: got.place for got in found if got.place is not None}
    entries = [got.entry for got in found]
    for entry in entries:
        if entry.path.endswith(".safetensors"):
            checkpoint.tensors(build.store.use(entry, build.places), entry.path)
        elif entry.path == checkpoint.CONFIG:
            names = [entry.path for entry in entries]
            checkpoint.refuse_other_weights(build.store.use(entry, build.places).read_bytes(), names)
    return entries


def is_local(build: Build) -> bool:
    """Whether the model, and the base model of an adapter, lie on this machine, where people work on them."""
    return all(source.provenance()["kind"] in ("folder", "starter") for source in build.sources)


def license_of(build: Build, number: int) -> str | None:
    """The licence of the model, or of an adapter's base model: as it is locked, where it can be known no better."""
    if build.lock is None or is_local(build):
        return build.sources[number].license()
    told = build.lock.license if number == 0 else build.lock.sources[number].get("license")
    return None if told is None else str(told)


STAGE = Stage(
    name="download",
    version=3,
    inputs=(),
    params=params,
    tools=lambda _build: (),
    run=run,
    prepare=prepare,
)
