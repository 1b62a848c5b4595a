"""`mar cache list`, `mar cache gc` and `mar cache verify`."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from ...cache import housekeeping
from ...cache.store import Store
from ...errors import InputError
from ...text import size, table
from ..options import CacheOption, JsonOption, bytes_of, example, open_store


@example("mar cache list")
def show(cache: CacheOption = None, as_json: JsonOption = False) -> None:
    """List the cached results by model and stage: size, age, last use, and the configs that use them."""
    from ...builder.build import NAMES

    opened = open_store(cache, read_only=True)
    sizes = housekeeping.blobs(opened)
    entries: list[dict[str, Any]] = []
    for result in housekeeping.results(opened):
        record = result.record
        entries.append(
            {
                "model": record.model,
                "stage": record.stage,
                "key": record.key,
                "size": sum(sizes.get(sha, 0) for sha in {entry.sha256 for entry in result.tree}),
                "made": record.made,
                "used": result.used,
                "configs": [_user(user) for user in result.users],
            }
        )
    entries.sort(key=lambda entry: (entry["model"], NAMES.index(entry["stage"]), -entry["used"]))
    if as_json:
        print(json.dumps({"root": str(opened.root), "size": sum(sizes.values()), "results": entries}))
        return
    rows = [
        [
            entry["model"],
            entry["stage"],
            size(entry["size"]),
            _ago(entry["made"]),
            _ago(entry["used"]),
            entry["key"][:12],
            ", ".join(_user_text(user) for user in entry["configs"]) or "none now",
        ]
        for entry in entries
    ]
    print(table(["model", "stage", "size", "made", "used", "key", "used by"], rows))
    total = size(sum(sizes.values()))
    print(f"{total} in {opened.root}; checkpoints stay where they are and are not counted")


def _user(subject: str) -> dict[str, str]:
    config, _, name = subject.rpartition("#")
    return {"config": config, "archive": name}


def _user_text(user: dict[str, str]) -> str:
    return f"{Path(user['config']).name} ({user['archive']})"


def _ago(then: float) -> str:
    """How long ago a time (seconds since 1970) was; "now" for a time in the future, from a wrong clock."""
    passed = max(0.0, time.time() - then)
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if passed >= length:
            return f"{passed / length:.0f} {unit} ago"
    return "now"


def _age(text: str) -> float:
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smhdw])\s*", text)
    if not match:
        raise InputError(f"--older-than {text} is not a length of time.", fix="Write it as 30d or 12h.")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}[match[2]]


@example("mar cache gc --older-than 30d --dry-run", "mar cache gc --max-size 20GB")
def collect(
    cache: CacheOption = None,
    max_size: Annotated[
        str | None, typer.Option(help="Keep at most this much, the latest used results first: 20GB.")
    ] = None,
    older_than: Annotated[
        str | None, typer.Option(help="Remove results that were not used for this long: 30d.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print how much would be freed; remove nothing.")] = False,
) -> None:
    """Remove files that no result needs, and results by age or size. Fails while a build runs."""
    opened = open_store(cache, read_only=dry_run)
    limit = bytes_of("--max-size", max_size) if max_size else None
    age = _age(older_than) if older_than else None
    with _alone(opened, "mar cache gc"):
        freed = housekeeping.collect(opened, max_size=limit, older_than=age, dry_run=dry_run)
    print(f"{size(freed)} {'would be freed' if dry_run else 'freed'} in {opened.root}")


@contextmanager
def _alone(opened: Store, command: str) -> Iterator[None]:
    """Lock the cache against builds. Raises InputError if a build is running, or the cache cannot be changed."""
    try:
        with opened.exclusive():
            yield
    except BlockingIOError:
        raise InputError("A build is using the cache.", fix=f"Run `{command}` when it has finished.") from None
    except OSError as error:
        raise InputError(
            f"The cache cannot be changed: {error.strerror} ({error.filename}).",
            fix="Make it writable for this user, or use --cache, or MAR_CACHE, for another one.",
        ) from None


@example("mar cache verify --repair")
def verify(
    cache: CacheOption = None,
    repair: Annotated[bool, typer.Option("--repair", help="Remove damaged files; builds make them again.")] = False,
) -> None:
    """Read the whole cache and compare every file with its digest."""
    opened = open_store(cache, read_only=not repair)
    with _alone(opened, "mar cache verify"):
        damages = housekeeping.damage(opened, repair=repair)
    for line in damages:
        print(line)
    done = ", removed" if repair else "; mar cache verify --repair removes them, and builds make them again"
    print(f"{len(damages)} damaged in {opened.root}" + (done if damages else ""))
    if damages and not repair:
        raise typer.Exit(InputError.exit_code)
