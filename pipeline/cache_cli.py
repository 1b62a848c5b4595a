"""`mar cache ...`, and the options that other commands share with it."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from . import console
from .errors import InputError
from .store import Store

EPILOG = (
    "Exit codes: 0 done, 1 unexpected, 2 bad input or settings, 3 a stage failed, "
    "4 the archive does not answer like the model."
)

CacheOption = Annotated[
    Path | None, typer.Option("--cache", envvar="MAR_CACHE", help="The cache folder.", show_default=False)
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON object, and nothing else, on standard output.")
]

app = typer.Typer(help="Look after the cache.", no_args_is_help=True, epilog=EPILOG, rich_markup_mode=None)


def store(cache: Path | None) -> Store:
    """The store in that folder, or in the user's own cache folder."""
    from platformdirs import user_cache_path

    return Store((cache or user_cache_path("mar-pipeline")).expanduser().absolute())


@app.command("list", epilog=EPILOG)
def cache_list(cache: CacheOption = None, as_json: JsonOption = False) -> None:
    """List what is cached: stage, size, last use, and for which archive it was made."""
    opened = store(cache)
    found: list[dict[str, Any]] = []
    for record, used in opened.records():
        try:
            tree = opened.tree(record.tree)
        except (OSError, ValueError):
            continue
        inside = sum(entry.size for entry in tree if opened.blob(entry.sha256).exists())
        config, _, name = record.subject.rpartition("#")
        found.append(
            {
                "stage": record.stage,
                "key": record.key,
                "archive": name,
                "config": config,
                "size": inside,
                "used": time.strftime("%Y-%m-%d %H:%M", time.localtime(used)),
            }
        )
    if as_json:
        print(json.dumps({"root": str(opened.root), "results": found}))
        return
    rows = [[f["archive"], f["stage"], console.size(f["size"]), f["used"], f["key"][:12]] for f in found]
    print(console.table(["archive", "stage", "size", "last used", "key"], sorted(rows)))
    sizes = [path.stat().st_size for path in opened.root.glob("blobs/*/*")]
    print(f"{console.size(sum(sizes))} in {opened.root}; checkpoints stay where they are and are not counted")


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


@app.command("gc", epilog=EPILOG)
def cache_gc(
    cache: CacheOption = None,
    max_size: Annotated[str | None, typer.Option(help="Keep at most so much, the latest used first: 20GB.")] = None,
    older_than: Annotated[str | None, typer.Option(help="Drop what was not used for so long: 30d.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
) -> None:
    """Remove what no result needs, and results by age or size; never while a build runs."""
    opened = store(cache)
    limit = _bytes(max_size) if max_size else None
    age = _age(older_than) if older_than else None
    try:
        with opened.exclusive():
            freed = opened.collect(max_size=limit, older_than=age, dry_run=dry_run)
    except BlockingIOError:
        raise InputError("A build is using the cache.", fix="Run `mar cache gc` when it is finished.") from None
    print(f"{console.size(freed)} {'would be freed' if dry_run else 'freed'} in {opened.root}")


@app.command("verify", epilog=EPILOG)
def cache_verify(
    cache: CacheOption = None,
    repair: Annotated[bool, typer.Option("--repair", help="Remove what is damaged, so that it is made anew.")] = False,
) -> None:
    """Read the whole cache again and hold it against its digests."""
    opened = store(cache)
    try:
        with opened.exclusive():
            found = opened.damage(repair=repair)
    except BlockingIOError:
        raise InputError("A build is using the cache.", fix="Run `mar cache verify` when it is finished.") from None
    for line in found:
        print(line)
    print(f"{len(found)} damaged in {opened.root}" + (", removed" if found and repair else ""))
    if found and not repair:
        raise typer.Exit(InputError.exit_code)
