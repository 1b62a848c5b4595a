"""Weights out of a safetensors file, mapped: read when they are used, and shared by all processes that map the file.

The package safetensors does this too; an archive that is to serve with torch and tokenizers alone does without it. The
format: https://github.com/huggingface/safetensors, 8 bytes for the length of a JSON header, the header, the tensors.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch

TYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64, "BOOL": torch.bool}


def mapped(file: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file by name. Raises ValueError if it is cut short or holds another type than TYPES."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        begin = 8 + int.from_bytes(stream.read(8), "little")
        try:
            header = json.loads(stream.read(begin - 8)) if begin <= size else {}
        except ValueError:
            header = {}
    header.pop("__metadata__", None)
    if not header or begin + max(entry["data_offsets"][1] for entry in header.values()) != size:
        raise ValueError(f"{file.name} is damaged: it is {size} bytes, which is not what its header says")
    content = torch.from_file(str(file), shared=False, size=size, dtype=torch.uint8)
    found = {}
    for name, entry in header.items():
        if entry["dtype"] not in TYPES:
            raise ValueError(f"{file.name} holds {name} as {entry['dtype']}, which is none of {', '.join(TYPES)}")
        first, last = entry["data_offsets"]
        found[name] = content[begin + first : begin + last].view(TYPES[entry["dtype"]]).view(entry["shape"])
    return found
