"""Hugging Face's own format: config.json and safetensors. A checkpoint that is in it already passes through."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ..checkpoint import CONFIG, INDEX, WEIGHTS, task_of
from ..child import work
from ..selection import ADAPTER

if TYPE_CHECKING:
    from ..stage import Build, Job
    from ..tree import Entry

TOOLS = ("transformers", "tokenizers")


def params(_build: Build) -> dict[str, Any]:
    return {}


def serialize(job: Job) -> Iterable[Entry]:
    """Keep the weights as they are if their class has the task's head; otherwise, and if it may be untrained, load and
    save them as one that has."""
    from ..resolve import load_settings

    build = job.build
    paths = [entry.path for entry in build.trees["download"]]
    # Neither pickles nor an adapter beside its base are what a handler loads.
    whole = WEIGHTS in paths or INDEX in paths
    whole &= not any(path.startswith(f"{ADAPTER}/") for path in paths)
    whole &= task_of(build.read_json("download", CONFIG)) == build.config.task
    if whole and not build.config.handler.allow_untrained_head:
        return [entry for entry in build.trees["download"] if ".safetensors" in entry.path]
    out = job.folder / "saved"
    out.mkdir()
    # In the checkpoint's own dtype: the setting is the handler's, and what is kept here has to do for every one.
    settings = {**load_settings(build, job.lay_out("download")), "dtype": "auto"}
    written = work("save", {**settings, "out": str(out)}, scratch=job.scratch, progress=job.progress)
    for name in written:
        if name == "config.json" or ".safetensors" in name:
            (out / name).replace(job.folder / name)
        else:
            (out / name).unlink()
    out.rmdir()
    return []
