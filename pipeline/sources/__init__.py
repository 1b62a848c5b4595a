"""The sources of checkpoints, one module a kind of them, and which of them a config means."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..cache.store import Store
from ..model.address import ModelSource
from ..model.lock import Locked
from .source import Source


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
