"""Draws a sample of mutants."""

from __future__ import annotations

import difflib
import random
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PACKAGES = {
    "config": "pipeline/config",
    "cache": "pipeline/cache",
    "archive": "pipeline/archive",
    "answers": "pipeline/answers",
    "handlers": "handlers",
}
EACH = 40
"""Mutants of each package."""

_OPERATORS = re.compile(
    r"core/(AddNot|NumberReplacer|Replace(AndWithOr|OrWithAnd|FalseWithTrue|TrueWithFalse"
    r"|BreakWithContinue|ContinueWithBreak|UnaryOperator_Delete_Not"
    r"|ComparisonOperator_(Eq_NotEq|NotEq_Eq|Lt_LtE|LtE_Lt|Gt_GtE|GtE_Gt|Is_IsNot|IsNot_Is)"
    r"|BinaryOperator_(Add_Sub|Sub_Add|Mul_FloorDiv|FloorDiv_Mul|Mod_Mul)))"
)


class Mutant(NamedTuple):
    package: str
    operator: str
    line: str
    mutated: str


def draw(commit: str, seed: int = 15) -> list[Mutant]:
    """A sample of lines that `commit` has once in one of its modules, too."""
    before = _lines(commit)
    chance = random.Random(seed)
    sample: list[Mutant] = []
    for package, folder in PACKAGES.items():
        files = sorted(file for file in Path(folder).rglob("*.py") if not file.is_symlink())
        mutants = sorted({m for file in files for m in _mutants(package, file) if before.get(m.line) == 1})
        # One of a line, so that no line counts more than others.
        chance.shuffle(mutants)
        mutants = list({mutant.line: mutant for mutant in mutants}.values())
        sample += sorted(mutants[:EACH])
    return sample


def _lines(commit: str) -> dict[str, int]:
    """How often each line stands in the product's modules at a commit."""
    names = subprocess.run(
        ["git", "ls-tree", "-r", "--name-only", commit, "pipeline", "handlers"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    counts: dict[str, int] = {}
    for name in names:
        if name.endswith(".py") and "training" not in name:
            text = subprocess.run(
                ["git", "show", f"{commit}:{name}"], capture_output=True, text=True, check=True
            ).stdout
            for line in text.splitlines():
                counts[line] = counts.get(line, 0) + 1
    return counts


def _mutants(package: str, file: Path) -> Iterator[Mutant]:
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator, operator_names

    code = file.read_text(encoding="utf-8")
    lines = code.splitlines()
    for name in filter(_OPERATORS.fullmatch, operator_names()):
        occurrence = 0
        while mutated := mutate_code(code, get_operator(name)(), occurrence):
            occurrence += 1
            changes = [line for line in difflib.ndiff(lines, mutated.splitlines()) if line[0] in "+-"]
            if [line[0] for line in changes] == ["-", "+"] and lines.count(changes[0][2:]) == 1:
                yield Mutant(package, name.removeprefix("core/"), changes[0][2:], changes[1][2:])
