"""Locks in a build: the lock that fits a config, how a checkpoint differs from it, and a new lock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...config.build_config import BuildConfig
from ...errors import InputError
from ...files.tree import Tree
from ...model import lock
from ...sources.hub.repository import Hub
from ...sources.source import Source
from ..build import Build, Checkpoint, Part
from .download import parts


def fitting(config: BuildConfig, *, strict: bool, note: Callable[[str], None]) -> lock.Lock | None:
    """The lock beside a config; None if there is none, or if it is of another model, which `note` then says. Raises
    InputError for both if `strict`, and if it cannot be read."""
    beside = lock.read(config.path)
    if beside is None:
        if strict:
            raise InputError(
                f"{config.path} has no lock, and --locked builds only a locked model.",
                fix=f"Write it, and keep it beside the config: {config.lock_command}",
            )
        return None
    stale = beside.stale(config.model.name, config.handler.choosing_files) or beside.foreign(config.model)
    if stale and strict:
        assert config.path is not None
        raise InputError(
            f"{lock.path_of(config.path)} is the lock of another model: {'; '.join(stale)}.",
            "The config has changed since it was locked, or an option of the command line overrides it.",
            f"Leave the option out; or write the change into the config, and lock it again: {config.lock_command}",
        )
    if stale:
        note(f"{lock.path_of(config.path)} is not used: {'; '.join(stale)}." if config.path else "")
    return None if stale else beside


def drift(build: Build, checkpoint: Checkpoint, tree: Tree) -> list[str]:
    """How the checkpoint's files differ from the lock, a line each. Raises InputError if they do. A folder, which
    people work in, may differ, with a warning, unless the build is `locked`."""
    if build.lock is None:
        return []
    lines = build.lock.drift({e.path: lock.File(sha256=e.sha256, size=e.size) for e in tree})
    licence = checkpoint.parts[0].source.license()
    if licence != build.lock.license and checkpoint.is_local:
        lines.append(f"its licence is {licence}, and was {build.lock.license}")
    if not lines:
        return []
    assert build.config.path is not None
    if build.options.locked or not checkpoint.is_local:
        raise lock.refusal(build.config.model.name, lock.path_of(build.config.path), lines)
    build.store.warn(
        f"{build.config.model.name} is not what {lock.path_of(build.config.path)} says: {lines[0]}"
        + (f", and {len(lines) - 1} more" if len(lines) > 1 else "")
        + f". It is built as it is. To lock it as it is now: {build.config.lock_command}"
    )
    return lines


def license_of(build: Build, checkpoint: Checkpoint, number: int) -> str | None:
    """The licence of the model, or of an adapter's base model: the locked one, unless a folder says another now."""
    if build.lock is None or checkpoint.is_local:
        return checkpoint.parts[number].source.license()
    licence = build.lock.license if number == 0 else build.lock.sources[number].get("license")
    return None if licence is None else str(licence)


def locked(build: Build) -> lock.Lock:
    """The lock of what the config's model is now. Files whose digests the Hub lists are not fetched. Raises InputError,
    also where only a cache can be asked, and StageError."""
    resolved = parts(build, lambda _reason: _silent, to_lock=True)
    files: dict[str, lock.File] = {}
    for part in resolved:
        part.source.may_fetch = True
        files |= _locked_files(part)
    sources = [part.source for part in resolved]
    return lock.Lock(
        model=build.config.model.name,
        settings=build.config.handler.choosing_files,
        sources=[_locked_source(source, number) for number, source in enumerate(sources)],
        license=sources[0].license(),
        files=files,
    )


def _silent(_what: str, _done: int, _total: int | None) -> None:
    """Progress that nobody sees."""


def _locked_files(part: Part) -> dict[str, lock.File]:
    digests: dict[str, str | None] = dict.fromkeys(part.files)
    if isinstance(part.source, Hub):
        if not part.source.is_listed:
            raise InputError(
                f"What {part.source.where} holds is unknown offline: its cache may have a part only.",
                fix="Lock it without --offline, HF_HUB_OFFLINE and TRANSFORMERS_OFFLINE.",
            )
        digests = {name: part.source.sha256(path) for name, path in part.files.items()}
    sizes = part.source.sizes()
    unknown = {name: path for name, path in part.files.items() if digests[name] is None}
    fetched = part.source.fetch(unknown, _silent)
    files = {file.entry.path: lock.File(sha256=file.entry.sha256, size=file.entry.size) for file in fetched}
    known = {name: sha for name, sha in digests.items() if sha is not None}
    return files | {name: lock.File(sha256=sha, size=sizes[part.files[name]]) for name, sha in known.items()}


def _locked_source(source: Source, number: int) -> dict[str, Any]:
    licence = source.license() if number else None
    return {**source.provenance(), **({"license": licence} if licence else {})}
