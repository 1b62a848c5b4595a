"""Inputs that were faults once: each reader gives its documented error, or a value."""

from __future__ import annotations

from pathlib import Path

import pytest

from .__main__ import readers
from .harness import CORPUS, once


@pytest.mark.parametrize("file", sorted(CORPUS.glob("*/*")), ids=lambda file: f"{file.parent.name}/{file.name}")
def test_a_past_fault_stays_mended(file: Path, tmp_path: Path) -> None:
    once(readers()[file.parent.name], file.read_bytes(), tmp_path)
