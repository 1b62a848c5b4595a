"""Tries random checkpoints: `python -m tests.long.random_checkpoints --minutes 60`, or one of them by its number."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import traceback
from collections import Counter
from itertools import count
from pathlib import Path

import transformers

from . import trial
from .recipes import recipe

UNEXPECTED = "unexpected"


def main() -> int:
    """1 if any was built and answers otherwise, or ended in an unexpected error."""
    parser = argparse.ArgumentParser(prog="python -m tests.long.random_checkpoints", description=__doc__)
    parser.add_argument("numbers", nargs="*", type=int, help="only these")
    parser.add_argument("--first", type=int, default=0, help="the first number (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=60)
    asked = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    until = time.monotonic() + 60 * asked.minutes
    counts: Counter[str] = Counter()
    reasons: Counter[tuple[str, str]] = Counter()
    for number in asked.numbers or count(asked.first):
        if time.monotonic() > until:
            break
        drawn = recipe(number)
        with tempfile.TemporaryDirectory(prefix="random-") as folder:
            try:
                outcome, why = trial.attempt(drawn, Path(folder))
            except Exception:  # it is what is looked for
                outcome, why = UNEXPECTED, traceback.format_exc()
        counts[outcome] += 1
        reasons[outcome, why.splitlines()[0] if why else ""] += 1
        if asked.numbers or outcome in (UNEXPECTED, trial.WRONG, trial.DIFFERS):
            print(f"{number} {outcome}: {drawn}\n{why}\n", flush=True)
    for (outcome, why), times in reasons.most_common():
        print(f"{times:4} {outcome}: {why[:300]}")
    print(", ".join(f"{times} {outcome}" for outcome, times in counts.most_common()))
    return int(bool(counts[trial.WRONG] or counts[UNEXPECTED]))


if __name__ == "__main__":
    sys.exit(main())
