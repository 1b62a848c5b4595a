"""The generated files, and their contents."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from . import commands, facts, settings
from .markdown import DOCS, ROOT, filled

PARTS: dict[str, dict[str, Callable[[], str]]] = {
    "reference/commands.md": {"commands": commands.page},
    "reference/settings.md": {"settings": settings.page},
    "reference/exit-codes.md": {"exit codes": facts.exit_codes},
    "reference/environment-variables.md": {"variables": facts.variables, "credentials": facts.credentials},
    "reference/limits.md": {"limits": facts.limits},
    "reference/advisories.md": {"advisories": facts.advisories},
    "explanation/verification.md": {"tolerances": facts.tolerances},
}
"""Page -> its generated parts. The rest of each page is written by hand. (families.md is written by `make test-matrix
WRITE=1`.)"""

SCHEMA = ROOT / "configs" / "schema.json"


def generated() -> dict[Path, str]:
    """Every generated file, with its current text."""
    pages = {
        DOCS / name: filled((DOCS / name).read_text(encoding="utf-8"), {part: make() for part, make in parts.items()})
        for name, parts in PARTS.items()
    }
    return {**pages, SCHEMA: json.dumps(settings.json_schema(), indent=2, ensure_ascii=False) + "\n"}


def stale() -> list[Path]:
    """The files whose text is not current."""
    return list(_changed())


def write() -> list[Path]:
    """Write the stale files; their paths."""
    changed = _changed()
    for path, text in changed.items():
        path.write_text(text, encoding="utf-8")
    return list(changed)


def _changed() -> dict[Path, str]:
    current = generated()
    return {path: text for path, text in current.items() if not path.exists() or path.read_text("utf-8") != text}
