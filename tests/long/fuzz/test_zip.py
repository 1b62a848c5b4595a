"""A zip file's directory and headers. `tests/unit/archive/readers` compares what is accepted with Java."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import strategies as st

from mar_pipeline.archive.reader import Archive
from tests.unit.archive.readers import zips

from .changes import changed_bytes
from .harness import Reader, check

_made = st.integers(0, 2**32).map(lambda number: zips.changed(random.Random(number)))


def read(data: bytes, folder: Path) -> None:
    file = folder / "name.mar"
    file.write_bytes(data)
    archive = Archive(file)
    archive.verify()
    archive.digests()
    archive.unpack(folder / "unpacked")


READER = Reader("zip", read, st.one_of(_made, changed_bytes(_made), st.binary(max_size=300)))


@pytest.mark.slow
def test_no_zip_file_ends_the_command_or_fills_the_disk(tmp_path: Path) -> None:
    check(READER, tmp_path)
