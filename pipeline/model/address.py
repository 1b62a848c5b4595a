"""The addresses of models: a starter that ships with the package, a folder, a Hub id, an address in an object store, or
a registered model of MLflow."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import unquote

from .. import ROOT
from ..tasks import TASKS
from ..text import near
from .misplaced import repository

Kind = Literal["starter", "folder", "hub", "url", "mlflow"]


@dataclass(frozen=True, kw_only=True)
class KindOfAddress:
    """A kind of address. `words` name it in messages. `field` is the field of `source` in provenance.json that holds
    the address; None for folders, whose paths are not recorded."""

    words: str
    field: str | None


KINDS: dict[Kind, KindOfAddress] = {
    "starter": KindOfAddress(words="a starter", field="name"),
    "folder": KindOfAddress(words="a folder", field=None),
    "hub": KindOfAddress(words="a Hub id", field="repo"),
    "url": KindOfAddress(words="an address in an object store", field="url"),
    "mlflow": KindOfAddress(words="a registered model, whose name includes its version", field="model"),
}

STARTERS = ROOT / "starters"
PREFIX = "starter:"

# The Hub's own rule for repository names (huggingface_hub's validate_repo_id): letters and digits, with - _ .
# inside, no -- and no .., at most 96 characters.
_PART = r"[A-Za-z0-9](?:[A-Za-z0-9_.\-]{0,94}[A-Za-z0-9_])?"
_HUB_ID = re.compile(rf"{_PART}(?:/{_PART})?")
# As in huggingface_hub's file system: slashes in a revision are percent-encoded, except in those of pull requests.
_HF = re.compile(rf"(?P<repo>{_PART}(?:/{_PART})?)(?:@(?P<revision>refs/(?:pr|convert)/[^/@]+|[^/@]+))?/?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_AZURE = ("az", "abfs", "abfss")
_OBJECT_STORES = ("s3", "gs", "gcs", *_AZURE)
REGISTERED = re.compile(r"models:/+(?P<model>[^/@'\"]+)(?:/(?P<version>[^/@'\"]+)|@(?P<alias>[^/@'\"]+))")
"""A registered model of MLflow with a version (a number or a stage), or an alias."""
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://[^\s'\"]+")
_LONGEST_PATH = 4096
_CHECKPOINT = re.compile(r"checkpoint-\d+")
"""The folders that transformers' Trainer saves to, by step."""
_BETWEEN = ("checkpoints", "checkpoint")
"""Folders between a run's folder and its checkpoints, whose names do not identify the run."""
_LONGEST_RUN = 150


def is_commit(revision: str | None) -> bool:
    """Whether a revision is a full commit hash, which is fixed (unlike a branch or a tag)."""
    return bool(revision and _COMMIT.fullmatch(revision))


@dataclass(frozen=True, kw_only=True)
class ModelSource:
    """A model's address.

    name      as the user wrote it
    path      of a starter or a folder
    repo      of a Hub id
    revision  of a Hub id, if the address has one (hf://ORGANISATION/NAME@REVISION)
    url       in an object store
    """

    kind: Kind
    name: str
    path: Path | None = None
    repo: str | None = None
    revision: str | None = None
    url: str | None = None

    @property
    def short_name(self) -> str:
        """The last part of the folder, the repository or the starter. A Trainer's checkpoint is prefixed with its run's
        name (run1-checkpoint-25), since every run has a checkpoint-25."""
        if self.kind == "mlflow" and (registered := REGISTERED.fullmatch(self.name)):
            return registered["model"]
        if self.repo is not None:
            return self.repo.rpartition("/")[2]
        parts = self.path.parts if self.path is not None else (self.url or self.name).partition("://")[2].split("/")
        *above, name = parts
        if self.kind in ("folder", "url") and _CHECKPOINT.fullmatch(name):
            run = next((part for part in reversed(above) if part not in _BETWEEN), "")
            return f"{run[:_LONGEST_RUN]}-{name}" if run.strip("/") else name
        return name


def find(name: str, folders: Sequence[Path]) -> ModelSource:
    """The address that `name` stands for; a relative path is looked up in `folders`, in order.

    Raises ValueError with a text that can follow "handler.model_name: ".
    """
    if not name.strip() or len(name) > _LONGEST_PATH or any(ord(letter) < 32 for letter in name):
        raise ValueError("not a name of a model: give starter:NAME, a folder, or a Hub id")
    if name.startswith(PREFIX):
        return _starter(name)
    if name.startswith(("models:/", "runs:/")):
        return _registered(name)
    if "://" in name:
        return _address(name, folders)
    try:
        path = Path(name).expanduser()
        candidates = [folder / path for folder in folders]
        existing = next((candidate for candidate in candidates if candidate.exists()), None)
        if existing is not None and existing.is_dir():
            return _folder(name, existing)
    except (OSError, RuntimeError) as error:
        raise ValueError(f"{name} cannot be accessed: {getattr(error, 'strerror', None) or error}") from None
    if existing is not None:
        config = f"; if it is a config: mar build {name}" if existing.suffix in (".yaml", ".yml") else ""
        raise ValueError(
            f"{name} is a file: name the folder that save_pretrained() wrote, with its config.json{config}"
        )
    if name[0] in "./~" or name.endswith("/") or "\\" in name:
        raise ValueError(f"no such folder: {name}{_hint(candidates)}")
    if (id_ := repository(name)) and _is_hub_id(id_):
        raise ValueError(
            f"{name} is a folder's name in the Hugging Face cache: write the Hub id, {id_}, or the path of one of the "
            "folder's snapshots"
        )
    if not _is_hub_id(name):
        raise ValueError(f"{name} is neither a folder here nor a Hub id (NAME or ORGANISATION/NAME){_hint(candidates)}")
    return ModelSource(kind="hub", name=name, repo=name)


def without_secrets(text: str) -> str:
    """The text with the log-ins and queries in its addresses replaced by ***."""
    return _ADDRESS.sub(lambda match: _masked(match[0]), text)


def _masked(address: str) -> str:
    scheme, _, rest = address.partition("://")
    rest, query, _ = rest.partition("?")
    first = rest.partition("/")[0]
    # A secret key may contain a /. Before an @, Azure's addresses have a container and the Hub's a repository.
    if ":" in first and "@" in rest:
        rest = f"***@{rest.rpartition('@')[2]}"
    elif "@" in first and scheme.lower() not in (*_AZURE, "hf"):
        rest = f"***@{rest.partition('@')[2]}"
    elif _is_login(scheme.lower(), first):
        rest = "***"
    return f"{scheme}://{rest}{'?***' if query else ''}"


def _is_login(scheme: str, first: str) -> bool:
    """Whether the part in place of the bucket's name has a password. (An access point's ARN has colons too.)"""
    return scheme in _OBJECT_STORES and ":" in first and not first.startswith("arn:")


def _is_hub_id(name: str) -> bool:
    return bool(_HUB_ID.fullmatch(name)) and "--" not in name and ".." not in name and not name.endswith(".git")


def _folder(name: str, path: Path) -> ModelSource:
    # Absolute, but with links unresolved: the archive is named after the link.
    return ModelSource(kind="folder", name=name, path=Path(os.path.abspath(path)))  # noqa: PTH100


def _address(name: str, folders: Sequence[Path]) -> ModelSource:
    scheme, _, rest = name.partition("://")
    scheme, shown = scheme.lower(), without_secrets(name)
    if scheme in _OBJECT_STORES:
        return _objects(name, scheme, rest)
    if scheme == "hf":
        return _hub(name, rest)
    if scheme == "file":
        return _file(name, rest, folders)
    hub = re.fullmatch(r"https?://(?:huggingface\.co|hf\.co)/([^/?#]+/[^/?#]+).*", name)
    instead = f"write its Hub id, {hub.group(1)}" if hub else "give a folder on this machine, or a Hub id"
    raise ValueError(f"{shown} is an address: {instead}")


def _objects(name: str, scheme: str, rest: str) -> ModelSource:
    shown, rest = without_secrets(name), rest.rstrip("/")
    first, _, prefix = rest.partition("/")
    if _is_login(scheme, first) or ("@" in first and scheme not in _AZURE) or "?" in rest:
        raise ValueError(
            f"{shown} has more than a bucket and a path: credentials come from the environment, not from an address"
        )
    if not first:
        raise ValueError(f"{shown} lacks a bucket: write {scheme}://BUCKET/PATH")
    if "#" in rest or "::" in rest or (prefix and {"", ".", ".."} & set(prefix.split("/"))):
        raise ValueError(f"{shown} is not an address of a checkpoint: write {scheme}://BUCKET/PATH")
    return ModelSource(kind="url", name=name, url=f"{scheme}://{rest}")


def _hub(name: str, rest: str) -> ModelSource:
    match = _HF.fullmatch(rest)
    if match is None or not _is_hub_id(match["repo"]) or match["repo"].startswith(("datasets/", "spaces/")):
        raise ValueError(f"{without_secrets(name)} is not a model on the Hub: write hf://ORGANISATION/NAME[@REVISION]")
    revision = unquote(match["revision"]) if match["revision"] else None
    return ModelSource(kind="hub", name=name, repo=match["repo"], revision=revision)


def _file(name: str, rest: str, folders: Sequence[Path]) -> ModelSource:
    host, slash, path = rest.partition("/")
    if host not in ("", "localhost") or not slash:
        raise ValueError(f"{without_secrets(name)} is on another machine: write file:///PATH")
    try:
        existing = [path for path in (Path("/", path), Path("/", unquote(path))) if folders and path.is_dir()]
    except (OSError, ValueError) as error:
        raise ValueError(f"{name} cannot be accessed: {getattr(error, 'strerror', None) or error}") from None
    if not existing:
        raise ValueError(f"no such folder: {name}")
    return _folder(name, existing[0])


def _registered(name: str) -> ModelSource:
    if not REGISTERED.fullmatch(name):
        raise ValueError(
            f"{name} does not name a registered model: write models:/NAME/VERSION or models:/NAME@ALIAS"
            + ("; `mlflow.register_model` registers a run's model" if name.startswith("runs:") else "")
        )
    return ModelSource(kind="mlflow", name=name)


def _starter(name: str) -> ModelSource:
    wanted = name.removeprefix(PREFIX)
    known = [
        *TASKS,
        *(sorted(folder.name for folder in STARTERS.iterdir() if folder.is_dir()) if STARTERS.is_dir() else []),
    ]
    if wanted not in known:
        like = near(wanted, known, 0.5)
        hint = f"did you mean {PREFIX}{like}?" if like else f"there are {', '.join(dict.fromkeys(known))}"
        raise ValueError(f"no such starter: {name}; {hint}")
    return ModelSource(kind="starter", name=name, path=STARTERS / wanted)


def _hint(candidates: Sequence[Path]) -> str:
    """`; did you mean X?` for a missing folder; "" if no folder beside it has a similar name."""
    for path in candidates:
        try:
            siblings = [item.name for item in path.parent.iterdir() if item.is_dir()]
        except OSError:
            continue
        if like := near(path.name, siblings):
            return f"; did you mean {path.parent / like}?"
    return ""
