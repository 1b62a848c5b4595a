"""Locks in a build: the one that fits a config, the checkpoint held against it, and a new one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...config.build_config import BuildConfig
from ...errors import InputError
from ...model import lock
from ...sources.hub.repository import Hub
from ...sources.source import Source
from ..build import Build
from .download import is_local, parts


def fitting(config: BuildConfig, *, strict: bool, say: Callable[[str], None]) -> lock.Lock | None:
    """The lock of a config; None if there is none, or one of another model, which it will `say`. Raises InputError for
    both if `strict`, and if it cannot be read."""
    found = lock.read(config.path)
    if found is None:
        if strict:
            raise InputError(
                f"{config.path} is to be built as it is locked, and has no lock.",
                fix=f"Write it, and keep it beside the config: mar lock {config.path}",
            )
        return None
    stale = found.stale(config.model.name, config.handler.choosing_files)
    if stale and strict:
        assert config.path is not None
        raise InputError(
            f"{lock.path_of(config.path)} is not of what is to be built: {'; '.join(stale)}.",
            "The config was changed since, or the command line says something else.",
            f"If that is meant, lock it again: mar lock {config.path}",
        )
    if stale:
        say(f"{lock.path_of(config.path)} is not used: {'; '.join(stale)}." if config.path else "")
    return None if stale else found


def check_lock(build: Build) -> None:
    """Hold the checkpoint against the lock. Raises InputError where it differs; a folder, which people work in, may
    differ unless the build is to be `locked`, and is warned of."""
    if build.lock is None:
        return
    drift = build.lock.drift({e.path: lock.File(sha256=e.sha256, size=e.size) for e in build.trees["download"]})
    if build.sources[0].license() != build.lock.license and is_local(build):
        drift.append(f"its licence is {build.sources[0].license()}, and was {build.lock.license}")
    build.drifted = bool(drift)
    if not drift:
        return
    assert build.config.path is not None
    if build.locked or not is_local(build):
        raise lock.refusal(build.config.model.name, lock.path_of(build.config.path), drift)
    build.store.warn(
        f"{build.config.model.name} is not what {lock.path_of(build.config.path)} says: {drift[0]}"
        + (f", and {len(drift) - 1} more" if len(drift) > 1 else "")
        + f". It is built as it is; `mar lock {build.config.path}` takes it over."
    )


def locked(build: Build) -> lock.Lock:
    """The lock of what the config's model is now. What the Hub tells digests of is not fetched for them. Raises
    InputError too where only a cache tells what there is."""
    found: dict[str, lock.File] = {}
    for part in parts(build, may_fetch=True, to_lock=True):
        known: dict[str, str | None] = dict.fromkeys(part.files)
        if isinstance(part.source, Hub):
            if not part.source.is_listed:
                raise InputError(
                    f"What {part.source.where} holds cannot be told offline: its cache may have a part only.",
                    fix="Lock it without --offline.",
                )
            known = {name: part.source.sha256(path) for name, path in part.files.items()}
        sizes = part.source.sizes()
        small = {name: path for name, path in part.files.items() if known[name] is None}
        fetched = part.source.fetch(small, lambda *_: None)
        found |= {f.entry.path: lock.File(sha256=f.entry.sha256, size=f.entry.size) for f in fetched}
        found |= {n: lock.File(sha256=sha, size=sizes[part.files[n]]) for n, sha in known.items() if sha is not None}
    return lock.Lock(
        model=build.config.model.name,
        settings=build.config.handler.choosing_files,
        sources=[_told(source, number) for number, source in enumerate(build.sources)],
        license=build.sources[0].license(),
        files=found,
    )


def _told(source: Source, number: int) -> dict[str, Any]:
    licence = source.license() if number else None
    return {**source.provenance(), **({"license": licence} if licence else {})}
