"""PEFT adapters: the task and the number of labels that one was trained for, and settings that cannot be meant."""

from __future__ import annotations

import re
from typing import Any

from ..errors import InputError
from ..tasks import TASKS, Task
from ..text import printable
from .labels import rows

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
            return rows(name, tensor["shape"])
    return None


_LARGEST = 4096
"""A rank, or another size of an adapter, that needs no weight of that size."""
_MOST_ITERATIONS, _MOST_LAYERS = 100, 1000


def refuse_strange(config: dict[str, Any], tensors: dict[str, Any]) -> None:
    """Raises InputError for settings in adapter_config.json that would take forever, or all memory. `tensors` is the
    header of the adapter's safetensors file; empty if it is a pickle."""
    init, copies = config.get("init_lora_weights"), config.get("layer_replication")
    iterations = re.fullmatch(r"pissa_niter_(\d+)", init) if isinstance(init, str) else None
    if iterations and (len(iterations[1]) > 4 or int(iterations[1]) > _MOST_ITERATIONS):
        raise _strange("init_lora_weights", init, f"PiSSA takes up to {_MOST_ITERATIONS} iterations")
    if copies is not None:
        try:
            layers = sum(max(0, int(end) - int(start)) for start, end in copies)
        except (TypeError, ValueError, OverflowError):
            layers = _MOST_LAYERS + 1
        if layers > _MOST_LAYERS or len(copies) > _MOST_LAYERS:
            raise _strange("layer_replication", copies, f"a model has up to {_MOST_LAYERS} layers")
    largest = max((size for one in tensors.values() for size in one["shape"]), default=10**6)
    ranks = config.get("rank_pattern")
    for name, value in [*config.items(), *(ranks.items() if isinstance(ranks, dict) else ())]:
        if type(value) is int and value > max(largest, _LARGEST) and "alpha" not in name and "seed" not in name:
            raise _strange(name, value, "no weight of the adapter has this size")


def _strange(name: str, value: Any, why: str) -> InputError:
    return InputError(
        f"{printable(name)[:80]} in the adapter's adapter_config.json is {printable(str(value))[:80]}: {why}.",
        "It was edited, or a program wrote it that is not peft.",
        "Correct it, or restore the file from the adapter's source.",
    )
