"""`python -m docs.generate`: writes what is generated.

python -m docs.generate              the reference, from the code
python -m docs.generate --check      writes nothing; exit code 1 if the reference is stale
python -m docs.generate tutorial     runs the tutorial's commands, and writes what they print into its pages
python -m docs.generate recording    runs a build, and draws docs/assets/build.svg
"""

from __future__ import annotations

import argparse
import sys

from . import markdown, pages, recording, tutorial


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m docs.generate", description="Write the generated documentation.")
    parser.add_argument("what", nargs="?", choices=["reference", "tutorial", "recording"], default="reference")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if the reference is stale")
    asked = parser.parse_args()
    if asked.check:
        stale = pages.stale()
        for path in stale:
            print(f"{path.relative_to(markdown.ROOT)} is stale; run `make docs-reference`.", file=sys.stderr)
        return int(bool(stale))
    write = {"reference": pages.write, "tutorial": tutorial.write, "recording": recording.write}[asked.what]
    for path in write():
        print(f"wrote {path.relative_to(markdown.ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
