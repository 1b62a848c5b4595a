"""The sample requests of an archive: the user's, or the task's, cut to what the model takes."""

from __future__ import annotations

from typing import Any

from ...model.lengths import switches
from ...tasks import Task
from ...workers.client import work
from .. import resolve
from ..build import Inputs, Job

LONGEST = 1024
"""The most tokens of a sample, unless the model computes longer texts otherwise: verifying would take minutes."""

BEYOND = 16
"""The tokens of a sample beyond a length at which a model changes."""


def samples(job: Job) -> list[Any]:
    """The user's sample requests, or the task's, cut by words until they fit in max_length, and long ones: at the
    model's limit or beyond it, and beyond the lengths at which it changes."""
    task, own = job.config.task, job.config.verify.samples
    if own is not None:
        return [_greedy(sample, task) if task.generates else sample for sample in own]
    wanted = {**fitting(job.inputs), "folder": str(job.lay_out("serialize")), "without_transformers": True}
    return list(work("samples", wanted, scratch=job.scratch, progress=job.progress, limits=job.limits))


def fitting(inputs: Inputs) -> dict[str, Any]:
    """Which samples a worker has to make, as the part of its job for `workers.samples.fitting`."""
    task, limit = inputs.config.task, resolve.max_length(inputs)
    points = [point for point in switches(inputs.read_json("download", "config.json")) if point < limit]
    longest = max([LONGEST, *(point + BEYOND for point in points)])
    job = {"samples": list(task.samples), "fields": list(task.fields), "limit": limit}
    if not task.generates:
        cut = limit > longest
        return {**job, "long": [longest if cut else limit * 3 // 2], "cut": cut}
    new = max(1, min(task.samples[0]["parameters"]["max_new_tokens"], limit // 2))
    lengths = [min(limit, longest)]
    # A text that crosses the last of these lengths while it is written.
    lengths += [points[-1] + new // 2] if points and new < points[-1] < limit - new else []
    return {**job, "long": lengths, "cut": True}


def _greedy(sample: Any, task: Task) -> Any:
    """A request for text generation without sampling, so that it gives the same text each time."""
    if isinstance(sample, str):
        sample = {task.fields[-1]: sample}
    if "instances" in sample:
        return {**sample, "instances": [_greedy(one, task) for one in sample["instances"]]}
    return {**sample, "parameters": {**sample.get("parameters", {}), "do_sample": False}}
