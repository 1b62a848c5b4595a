"""Maintenance of a store: listing, garbage collection, verification. Only while no build runs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..files import atomic
from ..files.tree import Tree, scan
from . import folder as cache_folder
from .store import Record, Store

PARTS_KEPT = 7 * 86_400.0
"""Seconds after which an incomplete download that is not used is removed."""
NOTES = ("keys", "latest", "facts", "files")
"""The folders of a store that contain notes."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """A cached result: its tree, when it was last `used` (seconds since the epoch), and the subjects (config
    path#archive name) whose last build used it."""

    record: Record
    tree: Tree
    used: float
    users: tuple[str, ...]


def results(store: Store) -> list[Result]:
    """Every readable result, the least recently used first."""
    users: dict[tuple[str, str], list[str]] = {}
    for _, value in _notes(store, "latest"):
        if value is None:
            continue
        users.setdefault((value["stage"], value["key"]), []).append(value["subject"])
    readable = []
    for path, value in _notes(store, "keys"):
        try:
            record = Record(**value)
            tree = store.tree(record.tree)
            used = path.stat().st_mtime
        except (OSError, ValueError, TypeError):
            continue
        using = tuple(sorted(users.get((record.stage, record.key), ())))
        readable.append(Result(record=record, tree=tree, used=used, users=using))
    return sorted(readable, key=lambda result: (result.used, result.record.key))


def _notes(store: Store, part: str) -> Iterator[tuple[Path, Any]]:
    """Every note in a part of the store, with its value; None for a damaged one."""
    for path in cache_folder.paths(store.root, part):
        try:
            yield path, atomic.read(path)
        except atomic.DamagedNote:
            yield path, None


def blobs(store: Store) -> dict[str, int]:
    """The size in bytes of every blob, by its name."""
    return {path.name: path.stat().st_size for path in cache_folder.paths(store.root, "blobs")}


def collect(
    store: Store, *, max_size: int | None = None, older_than: float | None = None, dry_run: bool = False
) -> int:
    """Drop results unused for `older_than` seconds, then the least recently used until the blobs of the rest fit into
    `max_size` bytes; remove everything that no remaining result needs, and the leftovers of killed builds.

    Returns the bytes that were freed, or with `dry_run` would be.
    """
    keep = results(store)
    if older_than is not None:
        # A time in the future comes from a wrong clock: such a result is kept.
        keep = [result for result in keep if time.time() - result.used <= older_than]
    sizes = blobs(store)
    if max_size is not None:
        keep = _newest(keep, sizes, max_size)
    needed = {entry.sha256 for result in keep for entry in result.tree}
    removed = [store.blob(sha) for sha in sizes.keys() - needed]
    keys = {(result.record.stage, result.record.key) for result in keep}
    removed += [path for path in cache_folder.paths(store.root, "keys") if (path.parent.name, path.stem) not in keys]
    trees = {result.record.tree for result in keep}
    removed += [path for path in cache_folder.paths(store.root, "trees") if path.stem not in trees]
    latest = ((path, value) for path, value in _notes(store, "latest") if value is not None)
    removed += [path for path, value in latest if (value["stage"], value["key"]) not in keys]
    outside = _notes(store, "files")
    removed += [path for path, value in outside if value is None or not Path(value["file"]).exists()]
    removed += cache_folder.leftovers(store.root)
    old = time.time() - min(PARTS_KEPT if older_than is None else older_than, PARTS_KEPT)
    removed += [path for path in cache_folder.paths(store.root, "partial") if path.stat().st_mtime < old]
    left = [path for folder in cache_folder.paths(store.root, "tmp") for path in folder.rglob("*")]
    freed = sum(path.lstat().st_size for path in [*removed, *left] if path.is_file() and not path.is_symlink())
    if not dry_run:
        for path in removed:
            path.unlink(missing_ok=True)
        store.sweep()
    return freed


def _newest(candidates: list[Result], sizes: dict[str, int], limit: int) -> list[Result]:
    """The most recently used results whose blobs together fit into `limit` bytes."""
    newest: list[Result] = []
    counted: set[str] = set()
    total = 0
    for result in reversed(candidates):
        own = {entry.sha256 for entry in result.tree} - counted
        total += sum(sizes.get(sha, 0) for sha in own)
        if total > limit:
            break
        counted |= own
        newest.append(result)
    return newest


def damage(store: Store, *, repair: bool = False) -> list[str]:
    """Verify every file of the store; a line for each that does not match its digest. `repair` removes those, so that
    the next build recreates them."""
    lines: list[str] = []

    def report(path: Path, text: str) -> None:
        lines.append(text)
        if repair:
            path.unlink(missing_ok=True)

    whole: set[str] = set()
    for path in cache_folder.paths(store.root, "blobs"):
        if scan(path, path.name).sha256 == path.name:
            whole.add(path.name)
        else:
            report(path, f"blob {path.name} does not match its digest")
    trees: dict[str, Tree] = {}
    for path in cache_folder.paths(store.root, "trees"):
        try:
            trees[path.stem] = store.tree(path.stem)
        except ValueError:
            report(path, f"tree {path.stem} is damaged")
    for path, value in (note for part in NOTES for note in _notes(store, part)):
        if value is None:
            report(path, f"{path.relative_to(store.root)} is damaged")
        elif path.parts[-3] == "keys":
            tree = trees.get(value["tree"])
            # A checkpoint outside the store may change or disappear: that is not damage of the store.
            if tree is None or not (value["places"] or {entry.sha256 for entry in tree} <= whole):
                report(path, f"the {path.parent.name} result {path.stem[:12]} lacks files")
    return lines
