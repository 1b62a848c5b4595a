"""`mar doctor`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ...cache import folder as cache_folder
from ...errors import InputError
from ...text import table
from ..options import CacheOption, JsonOption, OutOption, cache_of

if TYPE_CHECKING:
    from ...host.doctor import Check


def doctor(cache: CacheOption = None, out: OutOption = Path("build"), as_json: JsonOption = False) -> None:
    """Look at this machine: versions, Java, disk, compilers; and say how to mend what is missing."""
    from dataclasses import asdict

    from ...host.doctor import checks

    folder = cache_of(cache)
    found = checks(cache=folder, out=out, more=[own_cache(folder)])
    if as_json:
        print(json.dumps({"checks": [asdict(check) for check in found]}))
    else:
        print(table(["", "what", "found"], [[c.status, c.name, c.found] for c in found]))
        for check in found:
            if check.fix:
                print(f"\n{check.name}: {check.fix}")
    if any(check.status == "fail" for check in found):
        raise typer.Exit(InputError.exit_code)


def own_cache(folder: Path) -> Check:
    """Whether the cache can be in its folder, and whether nobody else can write to it."""
    from ...host.doctor import Check

    try:
        cache_folder.check(folder)
    except InputError as error:
        return Check(name="cache", status="fail", found=error.what, fix=error.fix)
    danger = cache_folder.risk(folder)
    if danger is not None:
        found, _, fix = danger.partition("\n")
        return Check(name="cache", status="warn", found=found, fix=fix.strip())
    return Check(name="cache", status="ok", found=f"{folder}{'' if folder.exists() else ', which is made when needed'}")
