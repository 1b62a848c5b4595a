"""Maps the weights of a safetensors file into memory: they are read on use and shared by all processes.

The safetensors package does this too, but a TorchScript archive serves with torch and tokenizers alone. The format
(https://github.com/huggingface/safetensors): 8 bytes with the length of a JSON header, the header, the tensors.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch

TYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64, "BOOL": torch.bool}


def mapped(file: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file by name. Raises ValueError if it is missing, damaged, or has a dtype that is not in
    TYPES."""
    size = present(file).stat().st_size
    with file.open("rb") as stream:
        begin = 8 + int.from_bytes(stream.read(8), "little")
        try:
            header = json.loads(stream.read(begin - 8)) if begin <= size else None
        except (ValueError, RecursionError):
            header = None
    if not isinstance(header, dict):
        raise damaged(file, f"it is {size} bytes and has no whole header")
    header.pop("__metadata__", None)
    for name, entry in header.items():
        _check(file, name, entry)
    end = 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        first, last = entry["data_offsets"]
        if first != end:
            raise damaged(file, f"{name} does not begin where the tensor before it ends")
        end = last
    if begin + end != size:
        raise damaged(file, f"it is {size} bytes, and its header says {begin + end}")
    content = torch.from_file(str(file), shared=False, size=size, dtype=torch.uint8)
    return {name: _tensor(content, begin, entry) for name, entry in header.items()}


def present(file: Path) -> Path:
    """The file. Raises ValueError if it is missing."""
    if not file.is_file():
        raise ValueError(f"{file.name} is missing: build the archive again")
    return file


def damaged(file: Path, what: str) -> ValueError:
    """The error for a damaged file of the archive; `what` says what is wrong."""
    return ValueError(f"{file.name} is damaged: {what}; build the archive again")


def _check(file: Path, name: str, entry: Any) -> None:
    """Raises ValueError if a header's entry is malformed, or if its size in bytes does not match its shape and
    dtype."""
    entry = entry if isinstance(entry, dict) else {}
    shape, places = entry.get("shape"), entry.get("data_offsets")
    if not (isinstance(entry.get("dtype"), str) and _whole(shape) and _whole(places) and len(places) == 2):
        raise damaged(file, f"{name} has no dtype, shape and data_offsets that can be read")
    if entry["dtype"] not in TYPES:
        raise ValueError(f"{file.name} has {name} as {entry['dtype']}: the handler reads {', '.join(TYPES)}")
    needed = math.prod(shape) * _bytes(TYPES[entry["dtype"]])
    if places[1] - places[0] != needed:
        raise damaged(file, f"{name} takes {places[1] - places[0]} bytes, and its shape and type need {needed}")


def _bytes(dtype: torch.dtype) -> int:
    """The size of one element; from torch 2.1 on, `dtype.itemsize`."""
    return torch.empty((), dtype=dtype).element_size()


def _whole(value: Any) -> Any:
    """Whether a JSON value is a list of integers that are not negative."""
    return isinstance(value, list) and all(type(number) is int and number >= 0 for number in value)


def _tensor(content: torch.Tensor, begin: int, entry: dict[str, Any]) -> torch.Tensor:
    first, last = (begin + place for place in entry["data_offsets"])
    dtype = TYPES[entry["dtype"]]
    part = content[first:last]
    # A header may have any length, so a tensor may be misaligned for its dtype: then it is copied.
    part = part.clone() if first % _bytes(dtype) else part
    return part.view(dtype).view(entry["shape"])
