"""The records of torch's own zip files (torch.save, torch.jit.save), read without torch."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import IO, BinaryIO

from . import writer


def records(stream: IO[bytes]) -> dict[str, tuple[int, int]]:
    """Size in bytes and CRC-32 of each record of a file of torch.save or torch.jit.save, by its name without the top
    folder. Raises zipfile.BadZipFile."""
    with zipfile.ZipFile(stream) as opened:
        return {info.filename.partition("/")[2]: (info.file_size, info.CRC) for info in opened.infolist()}


def is_trace_of_build(record: str) -> bool:
    """Whether a record of a TorchScript file depends on the build (source paths, a serial number), not on the graph."""
    return record.endswith((".debug_pkl", ".data/serialization_id"))


def write_repeatable(saved: BinaryIO, target: Path) -> None:
    """Write a saved graph without the records that differ between machines: the source location of each node, and a
    number computed from them. torch.jit.load does not need them."""
    with zipfile.ZipFile(saved) as records:
        names = [name for name in records.namelist() if not is_trace_of_build(name)]
        members = [writer.Member.of(name, records.read(name)) for name in names]
    writer.write_zip(target, members, writer.EPOCH, lambda _: None, deflated=False)
