"""`python -m tests.long.fuzz NAME [--minutes N] [--seed N]`: try one reader (all of them without a name) for N minutes.
It exits with 1 if there was a fault; the input is kept, and named."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path

from .harness import Reader, explore


def readers() -> dict[str, Reader]:
    """Every reader by its name."""
    modules = [import_module(f"{__package__}.{file.stem}") for file in sorted(Path(__file__).parent.glob("test_*.py"))]
    every = [module.READER for module in modules if hasattr(module, "READER")]
    return {reader.name: reader for reader in every}


def main() -> int:
    known = readers()
    parser = argparse.ArgumentParser(prog="python -m tests.long.fuzz", description=__doc__)
    parser.add_argument("name", nargs="*", choices=[*known, []], help="the readers to try")
    parser.add_argument("--minutes", type=float, default=1, help="for each reader")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    faults = 0
    for name in options.name or known:
        found = explore(known[name], 60 * options.minutes, options.seed)
        print(f"{name}: {found}", flush=True)
        if found.fault is not None:
            faults += 1
            place = Path(tempfile.mkdtemp(prefix=f"mar-fuzz-{name}-")) / "input"
            place.write_bytes(found.fault)
            print(f"  {place}", flush=True)
    return min(faults, 1)


if __name__ == "__main__":
    sys.exit(main())
