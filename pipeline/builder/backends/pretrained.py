"""Hugging Face's own format: config.json and safetensors. A checkpoint that is in it already passes through."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ...model.checkpoint import CONFIG, GENERATION, INDEX, WEIGHTS, task_of
from ...workers.client import work
from ..resolve import is_adapter, load_settings

if TYPE_CHECKING:
    from ...files.tree import Entry
    from ..build import Inputs, Job

TOOLS = ("transformers", "tokenizers")


def params(inputs: Inputs) -> dict[str, Any]:
    return {"dtype": inputs.config.handler.dtype} if is_adapter(inputs) else {}


def serialize(job: Job) -> Iterable[Entry]:
    """Keep the weights as they are, after a check, if their class has the task's head; otherwise, and if it may be
    untrained, load and save them as one that has."""
    inputs = job.inputs
    # Neither pickles nor an adapter beside its base are what a handler loads.
    whole = any(inputs.tree("download").get(name) for name in (WEIGHTS, INDEX)) and not is_adapter(inputs)
    whole &= task_of(inputs.read_json("download", CONFIG)) == inputs.config.task
    if whole and not inputs.config.handler.allow_untrained_head:
        settings = {**load_settings(inputs, job.lay_out("download")), "without_transformers": True}
        work("finite", settings, scratch=job.scratch, progress=job.progress, limits=job.limits)
        return [entry for entry in inputs.tree("download") if ".safetensors" in entry.path]
    out = job.folder / "saved"
    out.mkdir()
    settings = {**load_settings(inputs, job.lay_out("download")), "out": str(out)}
    if not is_adapter(inputs):
        # In the checkpoint's own dtype: the setting is the handler's, and what is kept here has to do for every one.
        # An adapter that is merged into fewer bits than it is served in would be another model.
        settings["dtype"] = "auto"
    for name in work("save", settings, scratch=job.scratch, progress=job.progress, limits=job.limits):
        # transformers takes generation's settings out of config.json when it saves it.
        taken_out = name == GENERATION and not (job.folder / name).exists()
        if name == CONFIG or ".safetensors" in name or taken_out:
            (out / name).replace(job.folder / name)
    shutil.rmtree(out)
    return []
