"""Whether an archive that goes for another one is of another model, and how to name both.

Its own provenance.json tells: an address, or the digests of the weights. Of a folder it does not tell which one it was;
that the cache knows, where it was the one that the archive was built with.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from ...archive.reader import PROVENANCE, Archive
from ...errors import InputError
from ...files.tree import text_digest
from ...text import printable
from ..build import Build, Inputs
from .archive import provenance, provenance_text

_ADDRESS = {"hub": "repo", "url": "url", "mlflow": "model", "starter": "name"}
"""What names the model of each kind of source but a folder."""
_WEIGHTS = re.compile(r".*\.(safetensors|bin|pt|pth)")
_MOST_FOLDERS = 8


def remember(inputs: Inputs) -> None:
    """Keep in which folder the model of an archive lay."""
    build = inputs.build
    if build.config.model.path is not None:
        name, folder = _fact(provenance_text(inputs)), str(build.config.model.path)
        before = _folders(build, name)
        if folder not in before:
            build.store.remember(name, json.dumps([folder, *before][:_MOST_FOLDERS]))


def _fact(text: str) -> str:
    return f"folders:{text_digest(text)}"


def _folders(build: Build, name: str) -> list[str]:
    kept = build.store.recall(name)
    return [] if kept is None else list(json.loads(kept))


def warning(inputs: Inputs, path: Path) -> str | None:
    """That the archive at `path`, for which the build's one comes, is of another model; None if it is not. Raises
    MarError, OSError if it cannot be read as an archive."""
    if not path.is_file() and not path.is_dir():
        raise InputError(f"{path} is not a file.")
    build, archive, new = inputs.build, Archive(path), provenance(inputs)
    try:
        text = archive.read(PROVENANCE).decode()
    except KeyError:
        version = archive.manifest["model"].get("modelVersion")
        what = f"{archive.name}{f', version {version}' if version else ''}, of another tool"
        return _told(build, path, f"is an archive of {what}")
    try:
        old = json.loads(text)
        if _weights(old) and _weights(old) == _weights(new):
            return None
        before, now = _address(old["source"]), _address(new["source"])
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return _told(build, path, "is an archive whose provenance.json cannot be read")
    if before is not None:
        return None if before == now else _told(build, path, f"is of another model, {before}")
    folders = _folders(build, _fact(text))
    if now is None and str(build.config.model.path) in folders:
        return None
    if folders:
        return _told(build, path, f"is of another model, {folders[0]}")
    about = f"a folder that this cache does not know, whose weights were {_mark(old)}"
    return _told(build, path, f"{'may be' if now is None else 'is'} of another model, {about}")


def _told(build: Build, path: Path, what: str) -> str:
    model = build.config.model
    name = str(model.path) if model.kind == "folder" else model.name
    if path.name == build.filename:
        then = f"that of {name} takes its place"
    else:
        then = f"{build.filename} of {name} takes its place, since both have one name"
    return printable(f"{path} {what}; {then}. To keep both, give one another name: --name NAME (archive.name).")


def _weights(told: dict[str, Any]) -> set[str]:
    return {sha for file, sha in told["checkpoint"].items() if _WEIGHTS.fullmatch(file)}


def _mark(told: dict[str, Any]) -> str:
    return ", ".join(sorted(str(sha)[:12] for sha in _weights(told))[:2]) or "none"


def _address(source: dict[str, Any]) -> str | None:
    """The model's address, in a few words; None of a folder."""
    kind = source["kind"]
    return None if kind not in _ADDRESS else f"{'starter:' if kind == 'starter' else ''}{source[_ADDRESS[kind]]}"
