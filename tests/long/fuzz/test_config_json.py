"""The settings of a checkpoint: config.json, generation_config.json, tokenizer_config.json, adapter_config.json."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mar_pipeline.builder import resolve
from mar_pipeline.builder.stages import samples
from mar_pipeline.config.build_config import load_all, packaged
from mar_pipeline.model import checkpoint, settings_files, values
from mar_pipeline.model.address import STARTERS
from mar_pipeline.tasks import TASKS

from .changes import of_json
from .harness import Reader, check

_NAMES = ("config.json", "generation_config.json", "tokenizer_config.json")
_ADAPTER = {
    "peft_type": "LORA",
    "task_type": "SEQ_CLS",
    "r": 8,
    "init_lora_weights": "pissa_niter_4",
    "layer_replication": [[0, 2], [1, 2]],
    "rank_pattern": {"query": 4},
    "target_modules": ["query"],
}
_ROPES = {
    "max_position_embeddings": 4096,
    "rope_parameters": {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 64},
    "sliding_window": 16,
    "attention_window": [8, 8],
    "text_config": {"sliding_window": 4},
    "quantization_config": {"quant_method": "fp8"},
    "num_labels": 3,
}
_SEEDS: list[Any] = [
    *(
        json.loads((STARTERS / task / name).read_text())
        for task in TASKS
        for name in _NAMES
        if (STARTERS / task / name).exists()
    ),
    _ADAPTER,
    _ROPES,
]
_CONFIGS = [config for config in load_all([packaged(task) for task in TASKS]) if config]


class _Inputs:
    """What `resolve` reads of a checkpoint in which every settings file has the same content."""

    def __init__(self, folder: Path, config: Any) -> None:
        self.folder, self.config = folder, config

    def read_json(self, _stage: str, path: str) -> dict[str, Any]:
        file = self.folder / path
        return checkpoint.read_json(file) if file.exists() else {}

    def find(self, _stage: str, path: str) -> Path | None:
        return self.folder / path if (self.folder / path).exists() else None

    def tree(self, _stage: str) -> list[Any]:
        names = [file.relative_to(self.folder).as_posix() for file in self.folder.rglob("*") if file.is_file()]
        return [SimpleNamespace(path=name) for name in names]


def read(data: bytes, folder: Path) -> None:
    for name in (*_NAMES, "adapter/adapter_config.json"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)
    checkpoint.refuse_other_weights(data, ["config.json", "model.safetensors"])
    settings_files.sanitize(folder, "model")
    for config in _CONFIGS:
        inputs: Any = _Inputs(folder, config)
        resolve.check_task(inputs)
        resolve.max_length(inputs)
        resolve.labels(inputs)
        resolve.tolerance(inputs)
        resolve.refuse_quantized(inputs)
        values.attention(inputs.read_json("download", "config.json"))
        samples.fitting(inputs)


READER = Reader("config_json", read, of_json(_SEEDS))


@pytest.mark.slow
def test_no_settings_end_the_command_or_take_its_memory(tmp_path: Path) -> None:
    check(READER, tmp_path)
