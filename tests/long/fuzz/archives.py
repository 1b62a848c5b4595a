"""A reader of whole archives: they are verified, digested and unpacked."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from hypothesis import strategies as st

from mar_pipeline.archive.reader import Archive

from .changes import changed_bytes
from .harness import Reader


def reader(name: str, suffix: str, changed: Callable[[random.Random], bytes]) -> Reader:
    """The reader of archives with this suffix; `changed` makes one that differs from a sound one."""
    made = st.integers(0, 2**32).map(lambda number: changed(random.Random(number)))

    def read(data: bytes, folder: Path) -> None:
        file = folder / f"name{suffix}"
        file.write_bytes(data)
        archive = Archive(file)
        archive.verify()
        archive.digests()
        archive.unpack(folder / "unpacked")

    return Reader(name, read, st.one_of(made, changed_bytes(made), st.binary(max_size=300)))
