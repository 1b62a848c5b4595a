"""Which model a name means: a starter that ships with the package, a folder, a Hub id, an address in an object store,
or a registered model of MLflow."""

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

STARTERS = ROOT / "starters"
PREFIX = "starter:"

# The Hub's own rule for repository names (huggingface_hub's validate_repo_id): letters and digits, with - _ .
# inside, no -- and no .., at most 96 characters.
_PART = r"[A-Za-z0-9](?:[A-Za-z0-9_.\-]{0,94}[A-Za-z0-9_])?"
_HUB_ID = re.compile(rf"{_PART}(?:/{_PART})?")
# As huggingface_hub's own file system writes a revision: its slashes quoted, but not those of a pull request's.
_HF = re.compile(rf"(?P<repo>{_PART}(?:/{_PART})?)(?:@(?P<revision>refs/(?:pr|convert)/[^/@]+|[^/@]+))?/?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_AZURE = ("az", "abfs", "abfss")
_OBJECT_STORES = ("s3", "gs", "gcs", *_AZURE)
REGISTERED = re.compile(r"models:/+(?P<model>[^/@'\"]+)(?:/(?P<version>[^/@'\"]+)|@(?P<alias>[^/@'\"]+))")
"""A registered model of MLflow: its version, number or stage, or its alias."""
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://[^\s'\"]+")
_LONGEST_PATH = 4096
_CHECKPOINT = re.compile(r"checkpoint-\d+")
"""As transformers' Trainer names the folders that it saves to, by the step."""
_BETWEEN = ("checkpoints", "checkpoint")
"""Folders between a run's and its checkpoints' that tell no run."""
_LONGEST_RUN = 150


def is_commit(revision: str | None) -> bool:
    """Whether a revision is a whole commit, which cannot move."""
    return bool(revision and _COMMIT.fullmatch(revision))


@dataclass(frozen=True, kw_only=True)
class ModelSource:
    """Where a checkpoint comes from: `path` of a starter or folder, `repo` of a Hub id with the `revision` that its
    address names, `url` in an object store; `name` as written."""

    kind: Literal["starter", "folder", "hub", "url", "mlflow"]
    name: str
    path: Path | None = None
    repo: str | None = None
    revision: str | None = None
    url: str | None = None

    @property
    def short_name(self) -> str:
        """The last part of the name: of the folder's, the repository's or the starter's. A Trainer's checkpoint has its
        run's name before its own (run1-checkpoint-25): every run has a checkpoint-25."""
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
    """The model that `name` means, relative paths being looked up in `folders` in turn.

    Raises ValueError with a text that can follow "handler.model_name: ".
    """
    if not name.strip() or len(name) > _LONGEST_PATH or any(ord(letter) < 32 for letter in name):
        raise ValueError("no name of a model: give starter:NAME, a folder, or a Hub id")
    if name.startswith(PREFIX):
        return _starter(name)
    if name.startswith(("models:/", "runs:/")):
        return _registered(name)
    if "://" in name:
        return _address(name, folders)
    try:
        path = Path(name).expanduser()
        candidates = [folder / path for folder in folders]
        found = next((candidate for candidate in candidates if candidate.exists()), None)
        if found is not None and found.is_dir():
            return _folder(name, found)
    except (OSError, RuntimeError) as error:
        raise ValueError(f"{name} cannot be looked at: {getattr(error, 'strerror', None) or error}") from None
    if found is not None:
        raise ValueError(f"{name} is a file: name the folder that save_pretrained() wrote, with its config.json")
    if name[0] in "./~" or name.endswith("/") or "\\" in name:
        raise ValueError(f"no such folder: {name}{_hint(candidates)}")
    if not _is_hub_id(name):
        raise ValueError(f"{name} is neither a folder here nor a Hub id (NAME or ORGANISATION/NAME){_hint(candidates)}")
    return ModelSource(kind="hub", name=name, repo=name)


def without_secrets(text: str) -> str:
    """A text whose addresses have neither log-ins nor queries any more."""
    return _ADDRESS.sub(lambda found: _masked(found[0]), text)


def _masked(address: str) -> str:
    scheme, _, rest = address.partition("://")
    rest, query, _ = rest.partition("?")
    first = rest.partition("/")[0]
    # A secret key may have a / of its own. In Azure's addresses a container stands before the @, in the Hub's a name.
    if ":" in first and "@" in rest:
        rest = f"***@{rest.rpartition('@')[2]}"
    elif "@" in first and scheme.lower() not in (*_AZURE, "hf"):
        rest = f"***@{rest.partition('@')[2]}"
    elif _is_login(scheme.lower(), first):
        rest = "***"
    return f"{scheme}://{rest}{'?***' if query else ''}"


def _is_login(scheme: str, first: str) -> bool:
    """Whether what stands where a bucket's name should holds a password. (An access point's name has colons.)"""
    return scheme in _OBJECT_STORES and ":" in first and not first.startswith("arn:")


def _is_hub_id(name: str) -> bool:
    return bool(_HUB_ID.fullmatch(name)) and "--" not in name and ".." not in name and not name.endswith(".git")


def _folder(name: str, path: Path) -> ModelSource:
    # Absolute, with links left as they are: a link's name is the model's name to the user.
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
            f"{shown} holds more than a bucket and a path: credentials come from the environment, never from an address"
        )
    if not first:
        raise ValueError(f"{shown} names no bucket: write {scheme}://BUCKET/PATH")
    if "#" in rest or "::" in rest or (prefix and {"", ".", ".."} & set(prefix.split("/"))):
        raise ValueError(f"{shown} is no address of a checkpoint: write {scheme}://BUCKET/PATH")
    return ModelSource(kind="url", name=name, url=f"{scheme}://{rest}")


def _hub(name: str, rest: str) -> ModelSource:
    found = _HF.fullmatch(rest)
    if found is None or not _is_hub_id(found["repo"]) or found["repo"].startswith(("datasets/", "spaces/")):
        raise ValueError(f"{without_secrets(name)} is no model of the Hub: write hf://ORGANISATION/NAME[@REVISION]")
    revision = unquote(found["revision"]) if found["revision"] else None
    return ModelSource(kind="hub", name=name, repo=found["repo"], revision=revision)


def _file(name: str, rest: str, folders: Sequence[Path]) -> ModelSource:
    host, slash, path = rest.partition("/")
    if host not in ("", "localhost") or not slash:
        raise ValueError(f"{without_secrets(name)} is on another machine: write file:///PATH")
    try:
        found = [path for path in (Path("/", path), Path("/", unquote(path))) if folders and path.is_dir()]
    except (OSError, ValueError) as error:
        raise ValueError(f"{name} cannot be looked at: {getattr(error, 'strerror', None) or error}") from None
    if not found:
        raise ValueError(f"no such folder: {name}")
    return _folder(name, found[0])


def _registered(name: str) -> ModelSource:
    if not REGISTERED.fullmatch(name):
        raise ValueError(
            f"{name} names no registered model: write models:/NAME/VERSION or models:/NAME@ALIAS"
            + ("; `mlflow.register_model` registers that of a run" if name.startswith("runs:") else "")
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
    """A hint at a folder beside one that is not there; empty if there is none like it."""
    for path in candidates:
        try:
            beside = [item.name for item in path.parent.iterdir() if item.is_dir()]
        except OSError:
            continue
        if like := near(path.name, beside):
            return f"; did you mean {path.parent / like}?"
    return ""
