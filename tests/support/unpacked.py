"""Unpacked archives of tiny checkpoints, laid out without the pipeline's stages, for the handlers' own tests."""

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path
from typing import Any

import yaml

from mar_pipeline.portable.context import LocalContext
from mar_pipeline.tasks import TASKS
from tests.support import tiny


def lay_out(
    folder: Path, checkpoint: Path, task: str, mode: str, *, names: dict[int, str] | None = None, **settings: Any
) -> Path:
    """An unpacked archive of `checkpoint` in `folder`; `names` are its labels, if they are not the tiny ones."""
    from mar_pipeline.workers.packed_tokenizer import pack

    folder.mkdir()
    for file in checkpoint.iterdir():
        if mode == "pretrained" or file.suffix != ".safetensors":
            shutil.copy(file, folder)
    if mode == "torchscript":
        from mar_pipeline.workers.trace import trace

        job = {
            "checkpoint": str(checkpoint),
            "auto_class": TASKS[task].auto_class,
            "allow_untrained_head": False,
            "out": str(folder),
            "task": task,
            "outputs": TASKS[task].outputs,
            "max_length": 64,
            "device": "cpu",
        }
        trace(job, lambda *_: None)
    pack({"checkpoint": str(checkpoint), "out": str(folder)}, lambda *_: None)
    (folder / "MAR-INF").mkdir()
    manifest = {"model": {"modelName": "tiny", "handler": f"{task}.py", "configFile": "model-config.yaml"}}
    (folder / "MAR-INF" / "MANIFEST.json").write_text(json.dumps(manifest))
    handler = {"mode": TASKS[task].mode, "save_mode": mode, "max_length": 64, **settings}
    (folder / "model-config.yaml").write_text(yaml.safe_dump({"handler": handler}))
    if task in tiny.LABELS:
        names = names or dict(enumerate(tiny.LABELS[task]))
        (folder / "index_to_name.json").write_text(json.dumps(names))
    return folder


class Served:
    """A handler that was loaded from an unpacked archive, asked as TorchServe asks it."""

    def __init__(self, folder: Path, task: str) -> None:
        self.folder = folder
        module = importlib.import_module(f"handlers.{task}")
        (kind,) = [c for c in vars(module).values() if isinstance(c, type) and c.__module__ == module.__name__]
        self.context = LocalContext(folder)
        self.handler: Any = kind()
        self.handler.initialize(self.context)

    def __call__(self, *bodies: Any) -> list[Any]:
        """The replies to requests that came as one batch."""
        self.context.begin(len(bodies))
        replies = list(self.handler.handle([{"body": body} for body in bodies], self.context))
        kinds = [self.context.get_response_content_type(index) for index in range(len(bodies))]
        assert kinds == ["application/json"] * len(bodies)
        json.dumps(replies)
        return replies

    @property
    def codes(self) -> dict[int, int]:
        """Index -> HTTP code of the last batch's requests that were refused."""
        codes = [self.context.status(index) for index in range(len(self.context.request_processor or ()))]
        return {index: code for index, code in enumerate(codes) if code != 200}
