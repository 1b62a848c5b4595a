"""The records of torch's own zip files (torch.save, torch.jit.save), which need no torch to read."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import IO, BinaryIO

from . import writer


def records(stream: IO[bytes]) -> dict[str, tuple[int, int]]:
    """The records of a file of torch.save or torch.jit.save by name, less its one folder's: size and CRC-32.
    Raises zipfile.BadZipFile."""
    with zipfile.ZipFile(stream) as opened:
        return {info.filename.partition("/")[2]: (info.file_size, info.CRC) for info in opened.infolist()}


def is_trace_of_build(record: str) -> bool:
    """Whether a record of a TorchScript file tells where it was made, and nothing of what it computes."""
    return record.endswith((".debug_pkl", ".data/serialization_id"))


def write_repeatable(saved: BinaryIO, target: Path) -> None:
    """Write a saved graph less the records that two builders' differ in: where in which file of whose folders each node
    was made, and a number made of that. torch.jit.load does without."""
    with zipfile.ZipFile(saved) as records:
        names = [name for name in records.namelist() if not is_trace_of_build(name)]
        members = [writer.Member.of(name, records.read(name)) for name in names]
    writer.write_zip(target, members, writer.EPOCH, lambda _: None, deflated=False)
