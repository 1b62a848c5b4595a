"""The size of the house's rooms."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import ROOT

MODULES = sorted(file for package in ("pipeline", "handlers") for file in (ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("file", MODULES, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_module_has_more_than_300_lines(file: Path) -> None:
    assert len(file.read_text(encoding="utf-8").splitlines()) <= 300
