"""The save mode torchscript: a worker traces the model (`workers.trace`)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ...workers.client import work
from ...workers.trace import FORMAT
from ..resolve import load_settings, max_length, refuse_quantized

if TYPE_CHECKING:
    from ...files.tree import Entry
    from ..build import Inputs, Job

TOOLS = ("torch", "transformers", "tokenizers")


def params(inputs: Inputs) -> dict[str, Any]:
    handler = inputs.config.handler
    refuse_quantized(inputs)
    return {
        "format": FORMAT,
        "max_length": max_length(inputs),
        "hardware": handler.hardware,
        "dtype": handler.dtype,
        "attn_implementation": handler.attn_implementation,
    }


def serialize(job: Job) -> Iterable[Entry]:
    """Trace the model in a worker; it writes GRAPH, WEIGHTS and FACTS of `workers.trace`."""
    config = job.config
    work(
        "trace",
        {
            **load_settings(job.inputs, job.lay_out("download")),
            "out": str(job.folder),
            "task": config.task.name,
            "outputs": config.task.outputs,
            "max_length": max_length(job.inputs),
            "device": "cuda" if config.handler.hardware == "gpu" else "cpu",
        },
        scratch=job.scratch,
        progress=job.progress,
        limits=job.limits,
    )
    return []
