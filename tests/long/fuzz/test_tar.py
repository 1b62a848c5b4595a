"""A compressed tar file's headers. `tests/unit/archive/readers` compares what is accepted with Java."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.archive.readers import tars

from .archives import reader
from .harness import check

READER = reader("tar", ".tar.gz", tars.changed)


@pytest.mark.slow
def test_no_tar_file_ends_the_command_or_fills_the_disk(tmp_path: Path) -> None:
    check(READER, tmp_path)
