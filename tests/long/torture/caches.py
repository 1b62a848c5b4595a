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
_REPORT = 1 << 20
"""Bytes that no report of a verification has."""


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
    """The paths of all that a cache holds: files everywhere, and folders too where builds leave theirs. A report, and
    the listings with it, are named by its `steady` bytes."""
    found = {file for file in cache.rglob("*") if file.is_file() and file.name != _LOCK}
    found |= set((cache / "tmp").glob("*"))
    paths = {path.relative_to(cache).as_posix() for path in found}
    for blob in files(cache, "blobs"):
        if blob.stat().st_size > _REPORT or b'"largest_difference"' not in (data := blob.read_bytes()):
            continue
        alias = hashlib.sha256(steady(data)).hexdigest()
        listings = [tree for tree in files(cache, "trees") if blob.name in tree.read_text(encoding="utf-8")]
        for path in (blob, *listings):
            paths.discard(path.relative_to(cache).as_posix())
            name = f"{path.relative_to(cache).parts[0]}/of the report {alias}"
            while name in paths:  # two that differ in their last digits are two
                name += ", again"
            paths.add(name)
    return paths


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder, hidden ones too, by its path in it; of a report's `steady` bytes."""
    return {file.relative_to(folder).as_posix(): digest(file) for file in sorted(folder.rglob("*")) if file.is_file()}


def digest(file: Path) -> str:
    """SHA-256 of a file, or of a report's `steady` bytes."""
    data = file.read_bytes()
    return hashlib.sha256(steady(data) if file.parent.name == "reports" else data).hexdigest()


def steady(report: bytes) -> bytes:
    """A report without the last digits of its scores, which depend on what else the machine did: the handler takes the
    product that is faster just then. One that is not whole stays as it is."""
    with suppress(ValueError):
        return json.dumps(json.loads(report, parse_float=lambda text: round(float(text), 4))).encode()
    return report


def unlike(found: Collection[str], wanted: Collection[str]) -> str:
    """What one set of names has and the other has not, in a line; empty if they are equal."""
    more, less = sorted(set(found) - set(wanted)), sorted(set(wanted) - set(found))
    parts = [f"{len(more)} too many: {', '.join(more[:4])}"] if more else []
    parts += [f"{len(less)} missing: {', '.join(less[:4])}"] if less else []
    return "; ".join(parts)
