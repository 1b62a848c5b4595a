"""`mar doctor`."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from ...errors import InputError
from ...text import table
from ..options import CacheOption, JsonOption, OutOption, cache_of


def doctor(cache: CacheOption = None, out: OutOption = Path("build"), as_json: JsonOption = False) -> None:
    """Look at this machine: versions, Java, disk, compilers; and say how to mend what is missing."""
    from dataclasses import asdict

    from ...host.doctor import checks

    found = checks(cache=cache_of(cache), out=out)
    if as_json:
        print(json.dumps({"checks": [asdict(check) for check in found]}))
    else:
        print(table(["", "what", "found"], [[c.status, c.name, c.found] for c in found]))
        for check in found:
            if check.fix:
                print(f"\n{check.name}: {check.fix}")
    if any(check.status == "fail" for check in found):
        raise typer.Exit(InputError.exit_code)
