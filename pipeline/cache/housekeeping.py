"""Looking after a store: what is in it, removing what is not needed, finding damage. All while no build runs."""

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
"""Seconds that a file which is not all fetched stays unused."""
NOTES = ("keys", "latest", "facts", "files")
"""The folders of a store that hold notes."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """A cached result: its tree, when it was last `used` (seconds since the epoch), and whose last builds (config
    path#archive name) it belongs to."""

    record: Record
    tree: Tree
    used: float
    users: tuple[str, ...]


def results(store: Store) -> list[Result]:
    """Every readable result, the longest unused first."""
    users: dict[tuple[str, str], list[str]] = {}
    for _, value in _notes(store, "latest"):
        if value is None:
            continue
        users.setdefault((value["stage"], value["key"]), []).append(value["subject"])
    found = []
    for path, value in _notes(store, "keys"):
        try:
            record = Record(**value)
            tree = store.tree(record.tree)
            used = path.stat().st_mtime
        except (OSError, ValueError, TypeError):
            continue
        using = tuple(sorted(users.get((record.stage, record.key), ())))
        found.append(Result(record=record, tree=tree, used=used, users=using))
    return sorted(found, key=lambda result: (result.used, result.record.key))


def _notes(store: Store, part: str) -> Iterator[tuple[Path, Any]]:
    """Every note in a part of the store with its value, None for a damaged one."""
    for path in cache_folder.paths(store.root, part):
        try:
            yield path, atomic.read(path)
        except atomic.DamagedNote:
            yield path, None


def blobs(store: Store) -> dict[str, int]:
    """Bytes of every blob, by its name."""
    return {path.name: path.stat().st_size for path in cache_folder.paths(store.root, "blobs")}


def collect(
    store: Store, *, max_size: int | None = None, older_than: float | None = None, dry_run: bool = False
) -> int:
    """Forget results unused for `older_than` seconds, then the longest unused while the blobs of the rest take more
    than `max_size` bytes, then remove all that no result names, and what killed builds left. Returns the bytes freed
    (or that would be)."""
    keep = results(store)
    if older_than is not None:
        # A time in the future is of a clock that was wrong: the result is not older than asked.
        keep = [result for result in keep if time.time() - result.used <= older_than]
    sizes = blobs(store)
    if max_size is not None:
        keep = _newest(keep, sizes, max_size)
    wanted = {entry.sha256 for result in keep for entry in result.tree}
    going = [store.blob(sha) for sha in sizes.keys() - wanted]
    kept = {(result.record.stage, result.record.key) for result in keep}
    going += [path for path in cache_folder.paths(store.root, "keys") if (path.parent.name, path.stem) not in kept]
    trees = {result.record.tree for result in keep}
    going += [path for path in cache_folder.paths(store.root, "trees") if path.stem not in trees]
    latest = ((path, value) for path, value in _notes(store, "latest") if value is not None)
    going += [path for path, value in latest if (value["stage"], value["key"]) not in kept]
    outside = _notes(store, "files")
    going += [path for path, value in outside if value is None or not Path(value["file"]).exists()]
    going += cache_folder.leftovers(store.root)
    old = time.time() - min(PARTS_KEPT if older_than is None else older_than, PARTS_KEPT)
    going += [path for path in cache_folder.paths(store.root, "partial") if path.stat().st_mtime < old]
    left = [path for folder in cache_folder.paths(store.root, "tmp") for path in folder.rglob("*")]
    freed = sum(path.lstat().st_size for path in [*going, *left] if path.is_file() and not path.is_symlink())
    if not dry_run:
        for path in going:
            path.unlink(missing_ok=True)
        store.sweep()
    return freed


def _newest(found: list[Result], sizes: dict[str, int], limit: int) -> list[Result]:
    """The results used last whose blobs fit together in `limit` bytes."""
    kept: list[Result] = []
    counted: set[str] = set()
    total = 0
    for result in reversed(found):
        own = {entry.sha256 for entry in result.tree} - counted
        total += sum(sizes.get(sha, 0) for sha in own)
        if total > limit:
            break
        counted |= own
        kept.append(result)
    return kept


def damage(store: Store, *, repair: bool = False) -> list[str]:
    """Read everything again; a line for each file that is not what its name, or it itself, says. `repair` removes them,
    so that the next build makes them anew."""
    found: list[str] = []

    def wrong(path: Path, text: str) -> None:
        found.append(text)
        if repair:
            path.unlink(missing_ok=True)

    whole: set[str] = set()
    for path in cache_folder.paths(store.root, "blobs"):
        if scan(path, path.name).sha256 == path.name:
            whole.add(path.name)
        else:
            wrong(path, f"blob {path.name} does not hold the bytes of its name")
    trees: dict[str, Tree] = {}
    for path in cache_folder.paths(store.root, "trees"):
        try:
            trees[path.stem] = store.tree(path.stem)
        except ValueError:
            wrong(path, f"tree {path.stem} is damaged")
    for path, value in (note for part in NOTES for note in _notes(store, part)):
        if value is None:
            wrong(path, f"{path.relative_to(store.root)} is not as it was written")
        elif path.parts[-3] == "keys":
            tree = trees.get(value["tree"])
            # A checkpoint outside the store may change or go: that is no damage here.
            if tree is None or not (value["places"] or {entry.sha256 for entry in tree} <= whole):
                wrong(path, f"the {path.parent.name} result {path.stem[:12]} lacks files")
    return found
