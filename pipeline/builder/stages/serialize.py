"""Serialize: a backend writes weights or a graph; the tokenizer's files and config.json are the same for all."""

from __future__ import annotations

import json
import shutil
from typing import Any

from ...config.values import COMPILED
from ...model import settings_files, tokenizer
from ...model.checkpoint import CONFIG, SIDE_FILES, read_json
from ...model.labels import labels as labels_of
from ...model.values import ATTENTION
from ...workers.client import work
from .. import backends, resolve
from ..build import Inputs, Job
from ..stage import Kept, Stage


def params(inputs: Inputs) -> dict[str, Any]:
    """What a backend's result depends on, beside the checkpoint. Raises InputError where the two contradict."""
    resolve.check_task(inputs)
    resolve.max_length(inputs)  # so that a wrong length is told before anything that takes time
    handler = inputs.config.handler
    return {
        "backend": backends.name(handler),
        "task": inputs.config.task.name,
        "labels": resolve.labels(inputs),
        "num_labels": handler.num_labels or None,
        "do_lower_case": handler.do_lower_case,
        "allow_untrained_head": handler.allow_untrained_head,
        **({"attn_implementation": handler.attn_implementation} if handler.attn_implementation else {}),
        **backends.of(handler).params(inputs),
    }


def run(job: Job) -> Kept:
    config = job.config
    _tokenizer(job)
    kept = list(backends.of(config.handler).serialize(job))
    _config(job)
    # What transformers saves names folders of this machine.
    settings_files.sanitize(job.folder, config.model.name, trusted=config.handler.trust_remote_code)
    # The model's own code: the checkpoint has it only if it is trusted.
    return Kept([*kept, *(entry for entry in job.inputs.tree("download") if entry.path.endswith(".py"))])


def _tokenizer(job: Job) -> None:
    """The tokenizer's files. The handlers read two of them, which transformers writes: tokenizer.json, and the settings
    beside it. They have no tokenizer classes with defaults."""
    checkpoint = job.lay_out("download")
    for name in SIDE_FILES:
        if (checkpoint / name).exists():
            shutil.copyfile(checkpoint / name, job.folder / name)
    work(
        "tokenizer",
        {
            "checkpoint": str(checkpoint),
            "out": str(job.folder),
            "trust_remote_code": job.config.handler.trust_remote_code,
        },
        scratch=job.scratch,
        progress=job.progress,
        limits=job.limits,
    )
    if job.config.handler.do_lower_case is not None:
        tokenizer.set_lower_case(job.folder, job.config.handler.do_lower_case)
    if job.config.handler.hardware in COMPILED:
        tokenizer.for_older_readers(job.folder)


def _config(job: Job) -> None:
    """config.json: the backend's, or the checkpoint's, with the labels that the model is served with."""
    target = job.folder / CONFIG
    if not target.exists():
        shutil.copyfile(job.lay_out("download") / CONFIG, target)
    config, names = read_json(target), resolve.labels(job.inputs)
    before = dict(config)
    number = config.get("num_labels")
    if names is not None and (names != labels_of(config) or number not in (None, len(names))):
        config["id2label"] = {str(index): name for index, name in names.items()}
        config["label2id"] = {name: index for index, name in names.items()}
        config.pop("num_labels", None)
    if job.config.handler.attn_implementation:
        # The setting counts; transformers would check what config.json asks for first.
        config = {key: _without_attention(value) for key, value in config.items() if key not in ATTENTION}
    if config != before:
        target.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _without_attention(value: Any) -> Any:
    """A part of config.json without the kind of attention that it asks for."""
    return {key: each for key, each in value.items() if key not in ATTENTION} if isinstance(value, dict) else value


STAGE = Stage(
    name="serialize",
    version=5,
    inputs=("download",),
    params=params,
    tools=lambda inputs: (*backends.of(inputs.config.handler).TOOLS, *resolve.merging(inputs)),
    run=run,
)
