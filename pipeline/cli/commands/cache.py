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
from ..options import CacheOption, JsonOption, open_store


def show(cache: CacheOption = None, as_json: JsonOption = False) -> None:
    """List what is cached, by model and stage: size, age, last use, and which configs use it."""
    from ...builder.runner import NAMES

    opened = open_store(cache, read_only=True)
    sizes = housekeeping.blobs(opened)
    found: list[dict[str, Any]] = []
    for result in housekeeping.results(opened):
        record = result.record
        found.append(
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
    found.sort(key=lambda one: (one["model"], NAMES.index(one["stage"]), -one["used"]))
    if as_json:
        print(json.dumps({"root": str(opened.root), "size": sum(sizes.values()), "results": found}))
        return
    rows = [
        [
            one["model"],
            one["stage"],
            size(one["size"]),
            _ago(one["made"]),
            _ago(one["used"]),
            one["key"][:12],
            ", ".join(_told(user) for user in one["configs"]) or "none now",
        ]
        for one in found
    ]
    print(table(["model", "stage", "size", "made", "used", "key", "used by"], rows))
    total = size(sum(sizes.values()))
    print(f"{total} in {opened.root}; checkpoints stay where they are and are not counted")


def _user(subject: str) -> dict[str, str]:
    config, _, name = subject.rpartition("#")
    return {"config": config, "archive": name}


def _told(user: dict[str, str]) -> str:
    return f"{Path(user['config']).name} ({user['archive']})"


def _ago(then: float) -> str:
    """How long ago a time was; of a clock that was wrong, at least not before it."""
    passed = max(0.0, time.time() - then)
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if passed >= length:
            return f"{passed / length:.0f} {unit} ago"
    return "now"


def _bytes(text: str) -> int:
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kKMGT]?)i?[bB]?\s*", text)
    if not match:
        raise InputError(f"--max-size {text} is no size.", fix="Write it as 20GB or 500MB.")
    return int(float(match[1]) * 1000 ** " kMGT".index(match[2].replace("K", "k") or " "))


def _age(text: str) -> float:
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smhdw])\s*", text)
    if not match:
        raise InputError(f"--older-than {text} is no time.", fix="Write it as 30d or 12h.")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}[match[2]]


def collect(
    cache: CacheOption = None,
    max_size: Annotated[str | None, typer.Option(help="Keep at most so much, the latest used first: 20GB.")] = None,
    older_than: Annotated[str | None, typer.Option(help="Drop what was not used for so long: 30d.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
) -> None:
    """Remove what no result needs, and results by age or size; never while a build runs."""
    opened = open_store(cache, read_only=dry_run)
    limit = _bytes(max_size) if max_size else None
    age = _age(older_than) if older_than else None
    with _alone(opened, "mar cache gc"):
        freed = housekeeping.collect(opened, max_size=limit, older_than=age, dry_run=dry_run)
    print(f"{size(freed)} {'would be freed' if dry_run else 'freed'} in {opened.root}")


@contextmanager
def _alone(opened: Store, command: str) -> Iterator[None]:
    """Hold the cache while no build runs, which might need what is removed. Raises InputError."""
    try:
        with opened.exclusive():
            yield
    except BlockingIOError:
        raise InputError("A build is using the cache.", fix=f"Run `{command}` when it is finished.") from None
    except OSError as error:
        raise InputError(f"The cache cannot be changed: {error.strerror} ({error.filename}).") from None


def verify(
    cache: CacheOption = None,
    repair: Annotated[bool, typer.Option("--repair", help="Remove what is damaged, so that it is made anew.")] = False,
) -> None:
    """Read the whole cache again and hold it against its digests."""
    opened = open_store(cache, read_only=not repair)
    with _alone(opened, "mar cache verify"):
        found = housekeeping.damage(opened, repair=repair)
    for line in found:
        print(line)
    print(f"{len(found)} damaged in {opened.root}" + (", removed" if found and repair else ""))
    if found and not repair:
        raise typer.Exit(InputError.exit_code)
