"""`python -m tests.unit.archive.readers [COUNT [FIRST]]`: COUNT changed archives (20,000, half of them zip files), from
seed FIRST on, against every Java here. It exits with 1 if one that is accepted is read differently; those are kept, and
named."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from tests.unit.archive.readers.fuzz import run
from tests.unit.archive.readers.java import compiled, javas


def main(count: int = 20_000, first: int = 0) -> int:
    classes = compiled(Path(tempfile.mkdtemp(prefix="mar-classes-")))
    if classes is None:
        print("There is no Java compiler (javac) here.")
        return 1
    scratch = Path(tempfile.mkdtemp(prefix="mar-readers-"))
    found = javas()
    print(f"{count} archives, held against {', '.join(map(str, found))}")
    figures = run(range(first, first + count // 2), found, classes, scratch)
    print(figures.text())
    for reason, times in figures.reasons.most_common(40):
        print(f"  {times:5} {reason!a}")
    shutil.rmtree(classes)
    if figures.differing:
        print("read otherwise:", *figures.differing[:50], sep="\n  ")
        return 1
    shutil.rmtree(scratch)
    return 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
