"""The sources of checkpoints, one module a kind of them, and which of them a config means."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..model_source import ModelSource, find
from ..selection import Base
from ..source import Source
from ..store import Store

if TYPE_CHECKING:
    from ..stage import Build


def _folder(store: Store, _offline: bool, model: ModelSource, _revision: str | None) -> Source:
    from .folder import Folder

    assert model.path is not None
    told: dict[str, Any] = {"kind": model.kind}
    if model.kind == "starter":
        told["name"] = model.short_name
    return Folder(store, model.path, model.name, told)


def _hub(store: Store, offline: bool, model: ModelSource, revision: str | None) -> Source:
    from . import hub, hub_client

    assert model.repo is not None
    return hub.Hub(store, model.repo, revision, no_network=hub_client.offline(offline))


KINDS: dict[str, Callable[[Store, bool, ModelSource, str | None], Source]] = {
    "starter": _folder,
    "folder": _folder,
    "hub": _hub,
}


def of(store: Store, offline: bool, model: ModelSource, revision: str | None) -> Source:
    """The source of a model."""
    return KINDS[model.kind](store, offline, model, revision)


def of_base(build: Build, base: Base) -> tuple[ModelSource, str | None]:
    """The model that an adapter was trained on, and its revision: what the config says, else what the adapter says.
    Raises InputError."""
    config = build.config
    name, revision = config.handler.base_model or base.name, config.handler.base_revision or base.revision
    folders = [Path()] if config.path is None else [config.path.parent, Path()]
    if config.model.path is not None:
        folders.insert(0, config.model.path)
    try:
        found = find(name, folders)
    except ValueError as error:
        raise InputError(
            f"The base model of {config.model.name} cannot be found: {error}.",
            "An adapter names its base as the machine had it that it was trained on.",
            "Set handler.base_model to where it is now: a folder, or a Hub id.",
        ) from None
    if found.kind == "folder" and config.model.path is None and not config.handler.base_model:
        raise InputError(
            f"{config.model.name} names {name}, a folder of this machine, for its base model.",
            fix="Set handler.base_model to it, if that is meant, or to a Hub id.",
        )
    return found, revision
