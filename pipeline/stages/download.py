"""Download: the checkpoint's files and their digests, from wherever its source has them. Files of this machine, and of
the Hugging Face cache, stay where they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .. import checkpoint, lock, sources
from ..errors import InputError
from ..selection import Selection, select, with_base
from ..source import NotReadYet, Progress, Source
from ..stage import Build, Job, Stage
from ..tree import Entry


@dataclass(frozen=True)
class Part:
    """Files of one source: path in the checkpoint -> path there."""

    source: Source
    files: Mapping[str, str]


def parts(build: Build, *, may_fetch: bool = False) -> list[Part]:
    """The model's source with what is needed of it, and its base model's. Raises NotReadYet unless it `may_fetch`,
    InputError, StageError."""
    model = build.config.model
    if not build.sources:
        build.sources.append(
            sources.of(build.store, build.offline, model, _revision(build, 0, model.repo, build.config.revision))
        )
    found = _select(build, build.sources[0], may_fetch)
    if found.base is None:
        return [Part(build.sources[0], found.files)]
    base, revision = sources.of_base(build, found.base)
    if len(build.sources) == 1:
        build.sources.append(sources.of(build.store, build.offline, base, _revision(build, 1, base.repo, revision)))
    around = _select(build, build.sources[1], may_fetch)
    if around.base is not None:
        raise InputError(
            f"{base.name}, the base model of {model.name}, is an adapter itself.",
            fix="Merge it into its base (peft's merge_and_unload()), save that, and set handler.base_model to it.",
        )
    return [Part(build.sources[0], found.files), Part(build.sources[1], with_base(found, around).files)]


def _revision(build: Build, number: int, repo: str | None, revision: str | None) -> str | None:
    locked = build.lock.commit(number, repo) if build.lock is not None and repo is not None else None
    return locked or revision


def _select(build: Build, source: Source, may_fetch: bool) -> Selection:
    handler, source.may_fetch = build.config.handler, may_fetch
    return select(
        source.sizes(), source.where, source.text, pickles=handler.allow_pickle, code=handler.trust_remote_code
    )


def _refuse_moving_code(build: Build) -> None:
    """Raises InputError where the code that would run can be another one tomorrow."""
    from ..sources.hub import is_commit

    config = build.config
    if config.model.kind in ("folder", "starter") or build.lock is not None or is_commit(config.revision):
        return
    raise InputError(
        f"handler.trust_remote_code is set, and {config.model.name} at {config.revision or 'main'} can change any day.",
        "Code that runs has to be the code that somebody has read.",
        "Set handler.revision to a commit (40 hexadecimal digits), or lock it: mar lock CONFIG",
    )


def params(build: Build) -> dict[str, Any]:
    """A commit, or digests. Raises NotReadYet for files that changed, InputError."""
    if build.config.handler.trust_remote_code:
        _refuse_moving_code(build)
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
    build.places = {got.entry.path: got.place for got in found if got.place is not None}
    entries = [got.entry for got in found]
    for entry in entries:
        if entry.path.endswith(".safetensors"):
            checkpoint.tensors(build.store.use(entry, build.places), entry.path)
    return entries


def check_lock(build: Build) -> None:
    """Hold the checkpoint against the lock. Raises InputError where it differs; a folder, which people work in, may
    differ unless the build is to be `locked`, and is warned of."""
    if build.lock is None:
        return
    drift = build.lock.drift({e.path: lock.File(sha256=e.sha256, size=e.size) for e in build.trees["download"]})
    if not drift:
        return
    assert build.config.path is not None
    if build.locked or build.config.model.kind not in ("folder", "starter"):
        shown = "; ".join([*drift[:4], *([f"and {len(drift) - 4} more"] if len(drift) > 4 else [])])
        raise InputError(
            f"{build.config.model.name} is not what {lock.path_of(build.config.path)} says: {shown}.",
            "Somebody changed it since it was locked, or it is not the model that was meant.",
            f"Find out who did; if the change is meant: mar lock {build.config.path}",
        )
    build.store.warn(
        f"{build.config.model.name} is not what {lock.path_of(build.config.path)} says: {drift[0]}"
        + (f", and {len(drift) - 1} more" if len(drift) > 1 else "")
        + f". It is built as it is; `mar lock {build.config.path}` takes it over."
    )


def locked(build: Build) -> lock.Lock:
    """The lock of what the config's model is now. What the Hub tells digests of is not fetched for them."""
    found: dict[str, lock.File] = {}
    for part in parts(build, may_fetch=True):
        told = getattr(part.source, "sha256", lambda _path: None)
        known = {name: told(path) for name, path in part.files.items()}
        sizes = part.source.sizes()
        small = {name: path for name, path in part.files.items() if known[name] is None}
        fetched = part.source.fetch(small, lambda *_: None)
        found |= {f.entry.path: lock.File(sha256=f.entry.sha256, size=f.entry.size) for f in fetched}
        found |= {n: lock.File(sha256=sha, size=sizes[part.files[n]]) for n, sha in known.items() if sha is not None}
    return lock.Lock(
        model=build.config.model.name,
        settings=lock.settings_of(build.config),
        sources=[source.provenance() for source in build.sources],
        license=build.sources[0].license(),
        files=found,
    )


STAGE = Stage(
    name="download",
    version=2,
    inputs=(),
    params=params,
    tools=lambda _build: (),
    run=run,
    prepare=prepare,
)
