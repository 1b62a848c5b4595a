"""All of it in full, with figures: `python -m tests.long.torture`, half an hour."""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from .plan import FULL, ORDEALS, SMALL, samples, timed
from .table import markdown


def main() -> int:
    """Do the ordeals; 1 if any of them found a fault."""
    parser = argparse.ArgumentParser(prog="python -m tests.long.torture", description=__doc__)
    parser.add_argument("ordeals", nargs="*", metavar="ORDEAL", help=f"{', '.join(ORDEALS)}; all if none is given")
    parser.add_argument("--small", action="store_true", help="as few times as the tests do")
    parser.add_argument("--seed", type=int, default=FULL.seed, help="of the moments, sizes and places by chance")
    asked = parser.parse_args()
    if unknown := set(asked.ordeals) - set(ORDEALS):
        parser.error(f"no such ordeal: {', '.join(sorted(unknown))}")
    plan = replace(SMALL if asked.small else FULL, seed=asked.seed)
    reports = []
    with tempfile.TemporaryDirectory(prefix="torture-") as folder:
        print("building the samples", file=sys.stderr, flush=True)
        found = samples(Path(folder) / "samples")
        for name in asked.ordeals or ORDEALS:
            print(name, file=sys.stderr, flush=True)
            reports.append(timed(name, Path(folder) / name, found, plan))
    print(markdown(reports, plan.seed))
    return int(any(report.faults for report in reports))


if __name__ == "__main__":
    sys.exit(main())
