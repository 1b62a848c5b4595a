"""The sources of checkpoints, one module a kind of them, and which of them a config means."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..cache.store import Store
from ..errors import InputError
from ..model.address import ModelSource, find
from ..model.lock import Locked
from ..model.selection import Base
from .source import Source

if TYPE_CHECKING:
    from ..builder.stage import Build


def _folder(store: Store, _offline: bool, model: ModelSource, _revision: str | None, _locked: Locked | None) -> Source:
    from .folder import Folder

    assert model.path is not None
    told: dict[str, Any] = {"kind": model.kind}
    if model.kind == "starter":
        told["name"] = model.short_name
    return Folder(store, model.path, model.name, told)


def _hub(store: Store, offline: bool, model: ModelSource, revision: str | None, _locked: Locked | None) -> Source:
    from .hub import client, repository

    assert model.repo is not None
    return repository.Hub(store, model.repo, revision, no_network=client.offline(offline))


def _url(store: Store, offline: bool, model: ModelSource, _revision: str | None, locked: Locked | None) -> Source:
    from .objects.filesystem import Objects
    from .remote import Url

    assert model.url is not None
    told = {"kind": model.kind, "url": model.url}
    return Url(store, model.url, Objects(model.url), told, no_network=offline, locked=locked)


def _mlflow(store: Store, offline: bool, model: ModelSource, _revision: str | None, locked: Locked | None) -> Source:
    from .mlflow.registry import Mlflow

    return Mlflow(store, model.name, no_network=offline, locked=locked)


KINDS: dict[str, Callable[[Store, bool, ModelSource, str | None, Locked | None], Source]] = {
    "starter": _folder,
    "folder": _folder,
    "hub": _hub,
    "url": _url,
    "mlflow": _mlflow,
}


def of(store: Store, offline: bool, model: ModelSource, revision: str | None, locked: Locked | None = None) -> Source:
    """The source of a model: what a lock says of it, where there is one, need not be asked for."""
    return KINDS[model.kind](store, offline, model, revision or model.revision, locked)


def of_base(build: Build, base: Base) -> tuple[ModelSource, str | None]:
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
