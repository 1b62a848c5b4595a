"""Builds every family on the running line of transformers: `python -m tests.long.families`."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.support import tiny

from . import table
from .matrix import Case, Outcome, build_all, cases


def main() -> int:
    """1 if docs/reference/families.md says otherwise."""
    parser = argparse.ArgumentParser(prog="python -m tests.long.families", description=__doc__)
    parser.add_argument("families", nargs="*", metavar="FAMILY", help="show these alone; all if none is given")
    parser.add_argument("--write", action="store_true", help="write this line's part of docs/reference/families.md")
    asked = parser.parse_args()
    if unknown := set(asked.families) - set(tiny.FAMILIES):
        parser.error(f"no such family: {', '.join(sorted(unknown))}; there are {', '.join(tiny.FAMILIES)}")
    if asked.families and asked.write:
        parser.error("the page is written whole")

    def tell(case: Case, outcome: Outcome) -> None:
        print(*case, "yes" if outcome is None else f"no: {outcome}", file=sys.stderr, flush=True)

    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="families-") as folder:
        outcomes = build_all(Path(folder), cases(asked.families or tiny.FAMILIES), tell)
    print(f"{len(outcomes)} builds in {time.monotonic() - start:.0f} s", file=sys.stderr)
    own = table.part(outcomes)
    if asked.write:
        table.write(own)
    elif asked.families:
        print(own)
    else:
        print(difference := table.difference(own))
        return int(bool(difference))
    return 0


if __name__ == "__main__":
    sys.exit(main())
