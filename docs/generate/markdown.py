"""Tables, and pages with generated parts between two comments."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1]
ROOT = DOCS.parent


def table(title: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [title, ["---"] * len(title), *rows]
    return "\n".join(f"| {' | '.join(map(cell, line))} |" for line in lines)


def cell(text: str) -> str:
    """Text on one line, without the characters that end a cell."""
    return re.sub(r"(?<!\\)\|", r"\\|", " ".join(text.split()))


def filled(page: str, parts: Mapping[str, str]) -> str:
    """The page with each part written anew between `<!-- generated: NAME -->` and `<!-- end of NAME -->`."""
    for name, text in parts.items():
        begin, end = f"<!-- generated: {name} -->", f"<!-- end of {name} -->"
        pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        if len(pattern.findall(page)) != 1:
            raise ValueError(f"the page must have {begin} and {end} exactly once")
        page = pattern.sub(lambda _: f"{begin}\n\n{text.strip()}\n\n{end}", page)  # noqa: B023
    return page


def comments(owner: type) -> dict[str, str]:
    """The docstring under each annotated attribute of a class, in one line each."""
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(owner))).body
    assert isinstance(body, ast.ClassDef)
    pairs = zip(body.body, body.body[1:], strict=False)
    return {
        first.target.id: " ".join(str(second.value.value).split())
        for first, second in pairs
        if isinstance(first, ast.AnnAssign)
        and isinstance(first.target, ast.Name)
        and isinstance(second, ast.Expr)
        and isinstance(second.value, ast.Constant)
        and isinstance(second.value.value, str)
    }
