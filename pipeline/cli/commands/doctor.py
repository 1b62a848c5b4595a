"""`mar doctor`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ...cache import folder as cache_folder
from ...errors import InputError
from ...text import table
from ..options import CacheOption, JsonOption, OutOption, cache_of, example

if TYPE_CHECKING:
    from ...host.doctor import Check


@example("mar doctor")
def doctor(cache: CacheOption = None, out: OutOption = Path("build"), as_json: JsonOption = False) -> None:
    """Check this machine (versions, Java, disk, compilers), and print how to fix each problem."""
    from dataclasses import asdict

    from ...host.doctor import checks

    folder = cache_of(cache)
    results = checks(cache=folder, out=out, more=[own_cache(folder)])
    if as_json:
        print(json.dumps({"checks": [asdict(check) for check in results]}))
    else:
        print(table(["", "what", "found"], [[check.status, check.name, check.found] for check in results]))
        for check in results:
            if check.fix:
                print(f"\n{check.name}: {check.fix}")
    if any(check.status == "fail" for check in results):
        raise typer.Exit(InputError.exit_code)


def own_cache(folder: Path) -> Check:
    """The check of the cache folder: usable, and writable by its owner only."""
    from ...host.doctor import Check

    try:
        cache_folder.check(folder)
    except InputError as error:
        return Check(name="cache", status="fail", found=error.what, fix=error.fix)
    risk = cache_folder.risk(folder)
    if risk is not None:
        what, _, fix = risk.partition("\n")
        return Check(name="cache", status="warn", found=what, fix=fix.strip())
    missing = "" if folder.exists() else ", which is made when needed"
    return Check(name="cache", status="ok", found=f"{folder}{missing}")
