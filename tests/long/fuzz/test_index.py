"""An index of weights (model.safetensors.index.json), and the other JSON files that choose a checkpoint's files."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest

from mar_pipeline.errors import MarError
from mar_pipeline.model.remote_code import with_code
from mar_pipeline.model.selection import select

from .changes import of_json
from .harness import Reader, check

_SEEDS = [
    {"metadata": {"total_size": 8}, "weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}},
    [{"idx": 0, "name": "0", "path": "sub", "type": "sentence_transformers.models.Transformer"}],
    {"base_model_name_or_path": "org/name", "revision": "main", "peft_type": "LORA", "task_type": "SEQ_CLS"},
    {"auto_map": {"AutoConfig": "own.Config", "AutoTokenizer": ["own.Slow", None]}, "model_type": "x"},
]
_FILES = ("model.safetensors", "model-1.safetensors", "model-2.safetensors", "tokenizer.json", "own.py", "README.md")


def read(data: bytes, folder: Path) -> None:
    del folder
    text = data.decode("utf-8", "replace")
    for present in (
        ["config.json", "model.safetensors.index.json", *_FILES[1:]],
        ["modules.json", "sub/config.json", "sub/model.safetensors", "sub/tokenizer.json"],
        ["adapter_config.json", "adapter_model.safetensors"],
        ["config.json", "tokenizer_config.json", *_FILES],
    ):
        with suppress(MarError):
            select(present, "org/name", lambda _: text)
    chosen = select(["config.json", *_FILES], "org/name", lambda _: text)
    with_code(chosen, ["config.json", *_FILES], "org/name", lambda path: text if path.endswith("json") else "")


READER = Reader("index", read, of_json(_SEEDS))


@pytest.mark.slow
def test_no_index_ends_the_command_or_leads_out_of_the_folder(tmp_path: Path) -> None:
    check(READER, tmp_path)
