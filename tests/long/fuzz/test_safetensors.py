"""The header of a safetensors file."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from mar_pipeline.model import adapter, labels
from mar_pipeline.model.checkpoint import tensors

from .changes import changed_bytes, changed_json, text_of
from .harness import Reader, check

_SEEDS = [
    {
        "__metadata__": {"format": "pt"},
        "bert.weight": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
        "classifier.weight": {"dtype": "F16", "shape": [2, 1], "data_offsets": [24, 28]},
        "classifier.bias": {"dtype": "BF16", "shape": [], "data_offsets": [28, 30]},
    },
    {"score.weight": {"dtype": "I64", "shape": [1, 1], "data_offsets": [0, 8]}},
]


@st.composite
def files(draw: Callable[..., Any]) -> bytes:
    """A safetensors file; its length may be another than that of its header."""
    header = text_of(draw(changed_json(_SEEDS)))
    length = draw(st.sampled_from((len(header), len(header), len(header), len(header) + 1, 0, 2**40, 2**64 - 1)))
    return struct.pack("<Q", length) + header + bytes(draw(st.sampled_from((0, 8, 30, 31))))


def read(data: bytes, folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(data)
    header = tensors(file, file.name)
    labels.head(header)
    adapter.labels(header)


READER = Reader("safetensors", read, st.one_of(files(), changed_bytes(files()), st.binary(max_size=300)))


@pytest.mark.slow
def test_no_header_ends_the_command_or_takes_its_memory(tmp_path: Path) -> None:
    check(READER, tmp_path)


def test_the_seeds_are_accepted(tmp_path: Path) -> None:
    for header, size in zip(_SEEDS, (30, 8), strict=True):
        text = json.dumps(header).encode()
        read(struct.pack("<Q", len(text)) + text + bytes(size), tmp_path)
