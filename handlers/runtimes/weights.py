"""Weights out of a safetensors file, mapped: read when they are used, and shared by all processes that map the file.

The package safetensors does this too; an archive that is to serve with torch and tokenizers alone does without it. The
format: https://github.com/huggingface/safetensors, 8 bytes for the length of a JSON header, the header, the tensors.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch

TYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64, "BOOL": torch.bool}


def mapped(file: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file by name. Raises ValueError if it is missing, damaged, or holds another type than TYPES."""
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
    """What is wrong with a file of the archive."""
    return ValueError(f"{file.name} is damaged: {what}; build the archive again")


def _check(file: Path, name: str, entry: Any) -> None:
    """Raises ValueError if an entry of a header is none, or its bytes are not as many as its shape and type have."""
    entry = entry if isinstance(entry, dict) else {}
    shape, places = entry.get("shape"), entry.get("data_offsets")
    if not (isinstance(entry.get("dtype"), str) and _whole(shape) and _whole(places) and len(places) == 2):
        raise damaged(file, f"{name} has no dtype, shape and data_offsets that can be read")
    if entry["dtype"] not in TYPES:
        raise ValueError(f"{file.name} holds {name} as {entry['dtype']}, which is none of {', '.join(TYPES)}")
    needed = math.prod(shape) * _bytes(TYPES[entry["dtype"]])
    if places[1] - places[0] != needed:
        raise damaged(file, f"{name} takes {places[1] - places[0]} bytes, and its shape and type need {needed}")


def _bytes(dtype: torch.dtype) -> int:
    """Of one number of that type; torch 2.1 and later say it by themselves."""
    return torch.empty((), dtype=dtype).element_size()


def _whole(value: Any) -> Any:
    """Whether a value out of JSON is a list of whole numbers, none below 0."""
    return isinstance(value, list) and all(type(number) is int and number >= 0 for number in value)


def _tensor(content: torch.Tensor, begin: int, entry: dict[str, Any]) -> torch.Tensor:
    first, last = (begin + place for place in entry["data_offsets"])
    dtype = TYPES[entry["dtype"]]
    part = content[first:last]
    # A header may be of any length; what does not lie where its type must is copied.
    part = part.clone() if first % _bytes(dtype) else part
    return part.view(dtype).view(entry["shape"])
