"""docs/reference/families.md: a part for each line of transformers, made of what was built on it."""

from __future__ import annotations

import difflib
import platform
import re
from collections.abc import Iterator, Mapping
from importlib.metadata import version

from tests.support import ROOT, tiny
from tests.support.mar import MODES

from .matrix import Case, Outcome

PAGE = ROOT / "docs" / "reference" / "families.md"
LINES = {"5": "transformers 5.x", "4": "transformers 4.57"}
"""By the first number of their versions, as they stand on the page."""

HEAD = """# Families

Which families of models build and verify, for which tasks and in which save modes. No table here is written by hand:
`make test-matrix` builds all of it on both lines of transformers, and fails where this page says otherwise;
`make test-matrix WRITE=1` writes it. On the line that is installed, `make test` does the same.

- **yes**: a tiny checkpoint of that architecture, with random weights, went through all stages. The archive's own
  handler answered every sample, alone and in a padded batch, as transformers does with the original checkpoint; in
  TorchScript mode with transformers not importable.
- **no**: the build ended with the error that stands below the table.
- **–**: transformers has no such class.

A yes is no promise for a model of real size: its own build verifies it in the same way. What is not listed may build as
well: no family has code of its own.
"""


def line() -> str:
    """The running line of transformers."""
    return version("transformers").split(".")[0]


def part(outcomes: Mapping[Case, Outcome]) -> str:
    """The running line's part of the page."""
    notes: dict[str, list[Case]] = {}
    for case, outcome in outcomes.items():
        if outcome is not None:
            notes.setdefault(outcome, []).append(case)
    tools = ", ".join(f"{name} {version(name).split('+')[0]}" for name in ("transformers", "tokenizers", "torch"))
    columns = ["family", *(f"{task}<br>{mode}" for task in tiny.AUTO for mode in MODES)]
    lines = [f"## {LINES[line()]}", "", f"{tools}, Python {platform.python_version()}.", "", *_rows([columns])]
    lines += ["|---" * len(columns) + "|", *_rows(_cells(outcomes, list(notes)))]
    if notes:
        lines.append("")
    lines += [f"{number}. {_names(found)}: {said}" for number, (said, found) in enumerate(notes.items(), 1)]
    return "\n".join(lines) + "\n"


def _rows(cells: list[list[str]] | Iterator[list[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in cells]


def _cells(outcomes: Mapping[Case, Outcome], notes: list[str]) -> Iterator[list[str]]:
    for family in dict.fromkeys(case.family for case in outcomes):
        row = [family]
        for task in tiny.AUTO:
            for mode in MODES:
                case = Case(family, task, mode)
                said = outcomes.get(case)
                row.append("–" if case not in outcomes else "yes" if said is None else f"no ({notes.index(said) + 1})")
        yield row


def _names(found: list[Case]) -> str:
    return "; ".join(" ".join(case) for case in found)


def parts() -> dict[str, str]:
    """What the page says, by line."""
    text = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    sections = {found.partition("\n")[0]: f"## {found.rstrip()}\n" for found in text.split("\n## ")[1:]}
    return {number: sections[name] for number, name in LINES.items() if name in sections}


def write(own: str) -> None:
    """Put the running line's part in its place."""
    found = {**parts(), line(): own}
    PAGE.write_text("\n".join([HEAD, *(found[number] for number in LINES if number in found)]), encoding="utf-8")


def difference(own: str) -> str:
    """How the running line's part differs from what the page says; empty if it does not. Other versions of the same
    line, and other numbers in an error, are the same."""
    before, after = (_plain(text).splitlines() for text in (parts().get(line(), ""), own))
    return "\n".join(difflib.unified_diff(before, after, str(PAGE), "what builds", lineterm="", n=0))


def _plain(text: str) -> str:
    return re.sub(r"\b\d+(\.\d+)*(e-?\d+)?\b", "#", text)
