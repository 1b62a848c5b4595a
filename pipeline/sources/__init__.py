"""The sources of checkpoints: a module for each kind, and the table that maps a model's address to its source."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..cache.store import Store
from ..model.address import ModelSource
from ..model.lock import Locked
from .objects.services import SERVICES
from .source import Source


def _folder(store: Store, _offline: bool, model: ModelSource, _revision: str | None, _locked: Locked | None) -> Source:
    from .folder import Folder

    assert model.path is not None
    provenance: dict[str, Any] = {"kind": model.kind}
    if model.kind == "starter":
        provenance["name"] = model.short_name
    return Folder(store, model.path, model.name, provenance)


def _hub(store: Store, offline: bool, model: ModelSource, revision: str | None, _locked: Locked | None) -> Source:
    from .hub import client, repository

    assert model.repo is not None
    return repository.Hub(store, model.repo, revision, no_network=client.offline(offline))


def _url(store: Store, offline: bool, model: ModelSource, _revision: str | None, locked: Locked | None) -> Source:
    from .objects.filesystem import Objects
    from .remote import Url

    assert model.url is not None
    provenance = {"kind": model.kind, "url": model.url}
    return Url(store, model.url, Objects(model.url), provenance, no_network=offline, locked=locked)


def _mlflow(store: Store, offline: bool, model: ModelSource, _revision: str | None, locked: Locked | None) -> Source:
    from .mlflow.registry import Mlflow

    return Mlflow(store, model.name, no_network=offline, locked=locked)


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of source: `open` makes one for a model. `credentials` are the environment variables that hold its
    secrets, which no process of a model gets (`host.environment`)."""

    open: Callable[[Store, bool, ModelSource, str | None, Locked | None], Source]
    credentials: tuple[str, ...]


KINDS = {
    "starter": Kind(open=_folder, credentials=()),
    "folder": Kind(open=_folder, credentials=()),
    "hub": Kind(open=_hub, credentials=("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")),
    "url": Kind(
        open=_url,
        credentials=tuple(dict.fromkeys(name for each in SERVICES.values() for name in each.credentials)),
    ),
    "mlflow": Kind(
        open=_mlflow,
        credentials=(
            "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "DATABRICKS_TOKEN", "DATABRICKS_CLIENT_SECRET",
        ),
    ),
}  # fmt: skip

_SHORTEST = 6
"""Characters of a secret that is one: a shorter value would blot out words."""


def redacted(text: str) -> str:
    """The text with the names of variables in place of the secrets that they hold."""
    for name in sorted({name for kind in KINDS.values() for name in kind.credentials}):
        value = os.environ.get(name, "")
        if len(value) >= _SHORTEST:
            text = text.replace(value, f"${name}")
    return text


def of(store: Store, offline: bool, model: ModelSource, revision: str | None, locked: Locked | None = None) -> Source:
    """The source of a model, at `revision` or that of its address. Locked files need no request to a server."""
    return KINDS[model.kind].open(store, offline, model, revision or model.revision, locked)
