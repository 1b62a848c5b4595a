"""Warns if a build replaces an archive of another model, and says how to keep both.

The old archive's provenance.json names its model: by the address, or, for a folder, by the digests of the weights. It
does not contain the folder's path, so the cache remembers which folders an archive was built from.
"""

from __future__ import annotations

import errno
import json
import re
from pathlib import Path
from typing import Any

from ...archive.reader import PROVENANCE, Archive
from ...files.tree import text_digest
from ...model.address import KINDS
from ...text import printable
from ..build import Build, Inputs
from .archive import provenance, provenance_text

_WEIGHTS = re.compile(r".*\.(safetensors|bin|pt|pth)")
_MOST_FOLDERS = 8


def remember(inputs: Inputs) -> None:
    """Keep in the cache which folder the archive's model lies in."""
    build = inputs.build
    if build.config.model.path is not None:
        fact, folder = _fact(provenance_text(inputs)), str(build.config.model.path)
        known = _folders(build, fact)
        if folder not in known:
            build.store.remember(fact, json.dumps([folder, *known][:_MOST_FOLDERS]))


def _fact(text: str) -> str:
    return f"folders:{text_digest(text)}"


def _folders(build: Build, fact: str) -> list[str]:
    text = build.store.recall(fact)
    return [] if text is None else list(json.loads(text))


def warning(inputs: Inputs, path: Path) -> str | None:
    """A warning if the archive at `path`, which the build's archive replaces, is of another model. Raises MarError,
    OSError if it cannot be read as an archive."""
    if not path.is_file() and not path.is_dir():
        raise FileNotFoundError(errno.ENOENT, "neither a file nor a folder", str(path))
    build, archive, new = inputs.build, Archive(path), provenance(inputs)
    try:
        text = archive.read(PROVENANCE).decode()
    except KeyError:
        version = archive.manifest["model"].get("modelVersion")
        what = f"{archive.name}{f', version {version}' if version else ''}, of another tool"
        return _warning(build, path, f"is an archive of {what}")
    try:
        old = json.loads(text)
        if _weights(old) and _weights(old) == _weights(new):
            return None
        before, now = _address(old["source"]), _address(new["source"])
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return _warning(build, path, "is an archive whose provenance.json cannot be read")
    if before is not None:
        return None if before == now else _warning(build, path, f"is of another model, {before}")
    folders = _folders(build, _fact(text))
    if now is None and str(build.config.model.path) in folders:
        return None
    if folders:
        return _warning(build, path, f"is of another model, {folders[0]}")
    about = f"a folder that this cache does not know, whose weights were {_short_digests(old)}"
    return _warning(build, path, f"{'may be' if now is None else 'is'} of another model, {about}")


def _warning(build: Build, path: Path, what: str) -> str:
    model = build.config.model
    name = str(model.path) if model.kind == "folder" else model.name
    if path.name == build.filename:
        then = f"that of {name} takes its place"
    else:
        then = f"{build.filename} of {name} takes its place, since both have one name"
    return printable(f"{path} {what}; {then}. To keep both, give one another name: --name NAME (archive.name).")


def _weights(provenance: dict[str, Any]) -> set[str]:
    """The digests of the weights."""
    return {sha for file, sha in provenance["checkpoint"].items() if _WEIGHTS.fullmatch(file)}


def _short_digests(provenance: dict[str, Any]) -> str:
    return ", ".join(sorted(str(sha)[:12] for sha in _weights(provenance))[:2]) or "none"


def _address(source: dict[str, Any]) -> str | None:
    """The model's address; None for a folder."""
    row = KINDS.get(source["kind"])
    if row is None or row.field is None:
        return None
    return f"{'starter:' if source['kind'] == 'starter' else ''}{source[row.field]}"
