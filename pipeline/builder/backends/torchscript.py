"""The save mode torchscript: a worker traces the model (`workers.trace`)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ...workers.client import work
from ...workers.trace import FORMAT
from ..resolve import load_settings, max_length

if TYPE_CHECKING:
    from ...files.tree import Entry
    from ..build import Build, Job

TOOLS = ("torch", "transformers", "tokenizers")


def params(build: Build) -> dict[str, Any]:
    handler = build.config.handler
    return {
        "format": FORMAT,
        "max_length": max_length(build),
        "hardware": handler.hardware,
        "dtype": handler.dtype,
        "attn_implementation": handler.attn_implementation,
    }


def serialize(job: Job) -> Iterable[Entry]:
    """Trace the model in a worker; it writes GRAPH, WEIGHTS and FACTS of `workers.trace`."""
    build = job.build
    work(
        "trace",
        {
            **load_settings(build, job.lay_out("download")),
            "out": str(job.folder),
            "task": build.config.task.name,
            "outputs": build.config.task.outputs,
            "max_length": max_length(build),
            "device": "cuda" if build.config.handler.hardware == "gpu" else "cpu",
        },
        scratch=job.scratch,
        progress=job.progress,
    )
    return []
