"""Copies of caches and output folders, with something taken out; and what is in them."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

STAGES = ("download", "serialize", "handler", "archive", "verify", "model_store")

_LOCK = "in-use.lock"


def put(source: Path | None, target: Path) -> None:
    """Make `target` a copy of `source` with all its times, or nothing."""
    shutil.rmtree(target, ignore_errors=True)
    if source is not None:
        shutil.copytree(source, target, symlinks=True)


def forget(cache: Path, stages: Collection[str]) -> None:
    """Take the records of these stages away; for the first one also what was read of the checkpoint."""
    for stage in stages:
        shutil.rmtree(cache / "keys" / stage, ignore_errors=True)
    if "download" in stages:
        shutil.rmtree(cache / "files", ignore_errors=True)


def files(cache: Path, part: str = "") -> list[Path]:
    """Every file of a cache that is not empty, or of one of its folders; sorted."""
    return sorted(file for file in (cache / part).rglob("*") if file.is_file() and file.stat().st_size)


def names(cache: Path) -> set[str]:
    """The paths of all that a cache holds: files everywhere, and folders too where builds leave theirs."""
    found = {file for file in cache.rglob("*") if file.is_file() and file.name != _LOCK}
    found |= set((cache / "tmp").glob("*"))
    return {path.relative_to(cache).as_posix() for path in found}


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder, hidden ones too, by its path in it."""
    return {file.relative_to(folder).as_posix(): digest(file) for file in sorted(folder.rglob("*")) if file.is_file()}


def digest(file: Path) -> str:
    """SHA-256 of a file; of a report without the last digits of its scores, which depend on what else the machine did:
    the handler takes the product that is faster just then."""
    data = file.read_bytes()
    if file.parent.name == "reports":
        # One that is not whole is another one.
        with suppress(ValueError):
            report = json.loads(data, parse_float=lambda text: round(float(text), 4))
            data = json.dumps(report).encode()
    return hashlib.sha256(data).hexdigest()


def unlike(found: Collection[str], wanted: Collection[str]) -> str:
    """What one set of names has and the other has not, in a line; empty if they are equal."""
    more, less = sorted(set(found) - set(wanted)), sorted(set(wanted) - set(found))
    parts = [f"{len(more)} too many: {', '.join(more[:4])}"] if more else []
    parts += [f"{len(less)} missing: {', '.join(less[:4])}"] if less else []
    return "; ".join(parts)
