"""Handler: what the server runs and reads beside the model. Handler files, setup config, labels, samples, schema."""

from __future__ import annotations

import json
import shutil
from typing import Any

from ...config import build_config
from ...errors import InputError
from ...files.tree import text_digest
from ...tasks import TASKS
from .. import resolve
from ..build import Inputs, Job
from ..stage import Kept, Stage
from .samples import samples


def _sources(task: str) -> dict[str, str]:
    """Archive path -> source text: the task's handler at the root, the shared modules in `handlers/`."""
    texts = {}
    for path, file in resolve.handler_sources().items():
        text = file.read_text(encoding="utf-8")
        if path == f"{task}.py":
            texts[path] = text
        elif path.removesuffix(".py") not in TASKS:
            texts[f"handlers/{path}"] = text
    return texts


def params(inputs: Inputs) -> dict[str, Any]:
    config = inputs.config
    return {
        "task": config.task.name,
        "settings": build_config.packed(config, resolve.packed_handler(inputs)),
        "labels": resolve.labels(inputs),
        "samples": config.verify.samples,
        "handlers": {path: text_digest(text) for path, text in sorted(_sources(config.task.name).items())},
    }


def run(job: Job) -> Kept:
    inputs, config = job.inputs, job.config
    for path, text in _sources(config.task.name).items():
        file = job.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    (job.folder / "model-config.yaml").write_text(build_config.dump(job.params["settings"]), encoding="utf-8")
    names = resolve.labels(inputs)
    if names is not None:
        _write(job, "index_to_name.json", {str(index): name for index, name in names.items()})
    _write(job, "samples.json", samples(job))
    from ...handlers.protocol.schema import schema

    _write(job, "schema.json", schema(config.task.name))
    # Two checkpoints could bring a file of one of these names; the archive holds one of each.
    clash = sorted(entry.path for entry in inputs.tree("serialize") if (job.folder / entry.path).exists())
    if clash:
        raise InputError(
            f"The checkpoint holds {', '.join(clash)}, names that the archive needs for its own files.",
            fix="Rename them in a copy of the checkpoint, also where its JSON files name them.",
        )
    shutil.rmtree(job.folder / "__pycache__", ignore_errors=True)
    return Kept()


def _write(job: Job, name: str, value: Any) -> None:
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    (job.folder / name).write_text(text, encoding="utf-8")


STAGE = Stage(
    name="handler",
    version=2,
    inputs=("download", "serialize"),
    params=params,
    tools=lambda _inputs: (),
    run=run,
)
