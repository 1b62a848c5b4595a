"""PEFT adapters: the task and the number of labels that one was trained for."""

from __future__ import annotations

from typing import Any

from ..tasks import TASKS, Task

TASK_TYPES = {task.peft: task.name for task in TASKS.values()}
"""PEFT's name of a task -> ours."""

_HEADS = ("classifier", "score", "out_proj")
"""Names of the layers with a row for each label, in all of transformers' classification classes."""


def task_of(config: dict[str, Any]) -> Task | None:
    """The task in an adapter_config.json; None if it has no `task_type`, or one of another task."""
    return TASKS.get(TASK_TYPES.get(str(config.get("task_type")), ""))


def labels(tensors: dict[str, Any]) -> int | None:
    """The number of labels of an adapter's own head, from its safetensors file's header; None if it has no head."""
    for name, tensor in tensors.items():
        layer, _, kind = name.replace(".modules_to_save", "").rpartition(".")
        if kind == "weight" and "lora_" not in name and layer.rpartition(".")[2] in _HEADS:
            return int(tensor["shape"][0])
    return None
