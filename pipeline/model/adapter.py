"""An adapter (PEFT): the task and the labels that it was trained for."""

from __future__ import annotations

from typing import Any

from ..tasks import TASKS, Task

TASK_TYPES = {task.peft: task.name for task in TASKS.values()}
"""PEFT's word for a task -> ours."""

_HEADS = ("classifier", "score", "out_proj")
"""How the layers are called whose rows are labels, in all of transformers' classes for classification."""


def task_of(told: dict[str, Any]) -> Task | None:
    """The task that an adapter_config.json says it was trained for."""
    return TASKS.get(TASK_TYPES.get(str(told.get("task_type")), ""))


def labels(tensors: dict[str, Any]) -> int | None:
    """How many labels the head has that came with an adapter, of the header of its safetensors; None without one."""
    for name, tensor in tensors.items():
        layer, _, kind = name.replace(".modules_to_save", "").rpartition(".")
        if kind == "weight" and "lora_" not in name and layer.rpartition(".")[2] in _HEADS:
            return int(tensor["shape"][0])
    return None
