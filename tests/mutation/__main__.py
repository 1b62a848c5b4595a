"""`python -m tests.mutation`: see the package."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

from .draw import Mutant, draw

SAMPLE = Path(__file__).with_name("sample.json")

TESTS = {
    "config": (
        "test_config_*", "test_generated_configs", "test_inferentia_settings", "test_yaml_lines", "test_model_source",
        "test_reference_example", "test_cli", "test_model_task",
    ),
    "cache": ("test_store", "test_cache_folder", "test_plan", "test_session", "test_abuse"),
    "archive": (
        "test_packing", "test_readers", "test_inspect", "test_pickles", "test_release", "test_signing", "test_check",
        "test_output_folder", "test_diff", "test_links",
    ),
    "answers": ("test_compare", "test_tokenization", "test_broken_flags", "test_tokenizer_files", "test_smoke"),
    "handlers": (
        "test_pace", "test_requests", "test_runs", "test_spans", "test_chat", "test_limits", "test_handlers",
        "test_nested", "test_linear", "test_generation", "test_handler_code",
    ),
}  # fmt: skip
"""The tests of each package, by the names of their modules."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description="How many small faults are noticed.")
    parser.add_argument("--draw", metavar="COMMIT", help="draw another sample, of lines that COMMIT has too")
    parser.add_argument(
        "--tests", metavar="EXPRESSION", help="pytest's -m (default: 'not slow'; of handlers those and the slow ones)"
    )
    parser.add_argument("--only", type=Path, metavar="FILE", help="only the mutants that FILE lists, one a line")
    parser.add_argument("--jobs", type=int, default=2)
    asked = parser.parse_args()
    if asked.draw:
        SAMPLE.write_text(json.dumps(draw(asked.draw), indent=0, ensure_ascii=False) + "\n", encoding="utf-8")
        return 0
    sample = [Mutant(*row) for row in json.loads(SAMPLE.read_text(encoding="utf-8"))]
    if asked.only:
        chosen = asked.only.read_text(encoding="utf-8").splitlines()
        sample = [mutant for mutant in sample if mutant.mutated in chosen]
    counts: dict[str, dict[str, int]] = {}
    for mutant, outcome in _try_all(sample, asked.tests, asked.jobs):
        row = counts.setdefault(mutant.package, {})
        row[outcome] = row.get(outcome, 0) + 1
        print(
            f"{outcome:8} {mutant.package:8} {mutant.operator}\n  - {mutant.line.strip()}\n  + {mutant.mutated.strip()}"
        )
        sys.stdout.flush()
    for package, row in counts.items():
        caught, survived = row.get("caught", 0), row.get("survived", 0)
        print(f"{package}: {caught} of {caught + survived} caught; {row.get('absent', 0)} lines are not there")
    return 0


def _try_all(sample: list[Mutant], tests: str | None, jobs: int) -> Iterator[tuple[Mutant, str]]:
    """The outcome of each mutant. Each job has a copy of the checkout, so nothing is changed here."""
    copies: SimpleQueue[Path] = SimpleQueue()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(jobs) as pool:
        for number in range(jobs):
            copies.put(copy := _copy(Path(folder) / str(number)))
        # Tests that fail anyway would catch everything.
        for package in {mutant.package for mutant in sample}:
            if not _passes(package, copy, tests):
                raise SystemExit(f"the tests of {package} fail without a mutant: run them, and mend that first")

        def outcome(mutant: Mutant) -> str:
            copy = copies.get()
            try:
                return _try(mutant, copy, tests)
            finally:
                copies.put(copy)

        yield from zip(sample, pool.map(outcome, sample), strict=True)


def _copy(folder: Path) -> Path:
    subprocess.run(["git", "clone", "--quiet", "--shared", ".", folder], check=True)
    return folder


def _try(mutant: Mutant, copy: Path, tests: str | None) -> str:
    places = [file for root in ("pipeline", "handlers") for file in (copy / root).rglob("*.py")]
    files = [file for file in places if mutant.line in file.read_text(encoding="utf-8").splitlines()]
    if len(files) != 1:
        return "absent"
    code = files[0].read_text(encoding="utf-8")
    lines = [mutant.mutated if line == mutant.line else line for line in code.splitlines()]
    files[0].write_text("\n".join(lines) + "\n", encoding="utf-8")
    try:
        return "survived" if _passes(mutant.package, copy, tests) else "caught"
    finally:
        files[0].write_text(code, encoding="utf-8")
        shutil.rmtree(copy / "build", ignore_errors=True)


def _passes(package: str, copy: Path, tests: str | None) -> bool:
    """Whether the tests of a package pass in a copy."""
    # Nearly every test of a handler loads a model. The fast ones come first, since one failure is enough.
    markers = [tests or "not slow"] + (["slow and not long"] if package == "handlers" and not tests else [])
    modules = [file for name in TESTS[package] for file in sorted((copy / "tests").rglob(f"{name}.py"))]
    return all(_passes_marked(marker, modules, copy) for marker in markers)


def _passes_marked(marker: str, modules: list[Path], copy: Path) -> bool:
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-m", marker, *map(str, modules)],
            cwd=copy,
            env=_environment(copy),
            capture_output=True,
            check=False,
            timeout=1200,
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def _environment(copy: Path) -> dict[str, str]:
    """The copy's package goes before the installed one."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (copy / "src", copy))), "PYTHONDONTWRITEBYTECODE": "1"}


if __name__ == "__main__":
    sys.exit(main())
