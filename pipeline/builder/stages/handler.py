"""Handler: what the server runs and reads beside the model. Handler files, setup config, labels, samples, schema."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from typing import Any

from ...config import build_config as configs
from ...errors import InputError
from ...files.tree import Entry, text_digest
from ...tasks import TASKS
from .. import resolve
from ..build import Build, Job
from ..stage import Stage
from .samples import samples


def _sources(build: Build) -> dict[str, str]:
    """Archive path -> source text: the task's handler at the root, the shared modules in `handlers/`."""
    found = {}
    for path, file in resolve.handler_sources().items():
        text = file.read_text(encoding="utf-8")
        if path == f"{build.config.task.name}.py":
            found[path] = text
        elif path.removesuffix(".py") not in TASKS:
            found[f"handlers/{path}"] = text
    return found


def settings(build: Build) -> dict[str, Any]:
    """The `handler:` section that is packed."""
    return configs.packed_handler(build.config, max_length=resolve.max_length(build))


def params(build: Build) -> dict[str, Any]:
    return {
        "task": build.config.task.name,
        "settings": configs.packed(build.config, settings(build)),
        "labels": resolve.labels(build),
        "samples": build.config.verify.samples,
        "handlers": {path: text_digest(text) for path, text in sorted(_sources(build).items())},
    }


def run(job: Job) -> Iterable[Entry]:
    build = job.build
    for path, text in _sources(build).items():
        file = job.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    packed = configs.packed(build.config, settings(build))
    (job.folder / "model-config.yaml").write_text(configs.dump(packed), encoding="utf-8")
    names = resolve.labels(build)
    if names is not None:
        _write(job, "index_to_name.json", {str(index): name for index, name in names.items()})
    _write(job, "samples.json", samples(build))
    from ...handlers.protocol.schema import schema

    _write(job, "schema.json", schema(build.config.task.name))
    # Two checkpoints could bring a file of one of these names; the archive holds one of each.
    clash = sorted(entry.path for entry in build.trees["serialize"] if (job.folder / entry.path).exists())
    if clash:
        raise InputError(f"The checkpoint holds {', '.join(clash)}, names that the archive needs for its own files.")
    shutil.rmtree(job.folder / "__pycache__", ignore_errors=True)
    return []


def _write(job: Job, name: str, value: Any) -> None:
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    (job.folder / name).write_text(text, encoding="utf-8")


STAGE = Stage(
    name="handler",
    version=1,
    inputs=("serialize",),
    params=params,
    tools=lambda _build: (),
    run=run,
)
