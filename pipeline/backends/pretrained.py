"""Hugging Face's own format: config.json and safetensors. A checkpoint that is in it already passes through."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ..checkpoint import task_of
from ..child import work

if TYPE_CHECKING:
    from ..stage import Build, Job
    from ..tree import Entry

TOOLS = ("transformers", "tokenizers")


def params(_build: Build) -> dict[str, Any]:
    return {}


def serialize(job: Job) -> Iterable[Entry]:
    """Keep the weights as they are if their class has the task's head; otherwise load and save them as one that has."""
    from ..resolve import load_settings

    build = job.build
    if task_of(build.read_json("download", "config.json")) == build.config.task and not _new_head(build):
        return [entry for entry in build.trees["download"] if ".safetensors" in entry.path]
    out = job.folder / "saved"
    out.mkdir()
    settings = load_settings(build, job.lay_out("download"))
    written = work("save", {**settings, "out": str(out)}, scratch=job.scratch, progress=job.progress)
    for name in written:
        if name == "config.json" or ".safetensors" in name:
            (out / name).replace(job.folder / name)
        else:
            (out / name).unlink()
    out.rmdir()
    return []


def _new_head(build: Build) -> bool:
    # Another number of labels than the checkpoint's is only allowed with a head that starts anew.
    from ..checkpoint import labels

    asked = build.params["serialize"]["num_labels"]
    return asked is not None and asked != len(labels(build.read_json("download", "config.json")))
