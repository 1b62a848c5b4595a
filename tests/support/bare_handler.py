"""Run by its path, on a Python without transformers: an unpacked archive's own handler, asked as TorchServe asks it.

It uses nothing but the archive's files and what that Python has. Standard input has [{"folder", "settings",
"batches"}]: an archive, its model-config.yaml's values, and the bodies of each batch. Standard output gets
{"importable": those of PACKAGES that can be imported, "answers": [{"replies": [the replies to each batch], "statuses":
[{index: HTTP code} of each batch]}]}.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

PACKAGES = ("transformers", "captum", "mar_pipeline", "pydantic", "torch", "tokenizers")


class Context:
    """What the handlers read of TorchServe's context."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        manifest = json.loads((folder / "MAR-INF" / "MANIFEST.json").read_text(encoding="utf-8"))
        self.model_name, self.handler = manifest["model"]["modelName"], manifest["model"]["handler"]
        self.model_yaml_config = settings
        self.system_properties = {"model_dir": str(folder), "gpu_id": None}
        self.statuses: dict[int, int] = {}

    def get_request_header(self, _index: int, _key: str) -> None:
        return None

    def set_response_status(self, code: int, phrase: str, idx: int) -> None:
        assert phrase
        self.statuses[idx] = code

    def set_response_content_type(self, _index: int, value: str) -> None:
        assert value == "application/json"


def importable(name: str) -> bool:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        return error.name != name
    return True


def answers(job: dict[str, Any]) -> dict[str, Any]:
    folder = Path(job["folder"])
    os.chdir(folder)
    sys.path[0] = str(folder)
    for name in [name for name in sys.modules if name.split(".")[0] == "handlers"]:
        del sys.modules[name]
    context = Context(folder, job["settings"])
    module = importlib.import_module(context.handler.removesuffix(".py"))
    (kind,) = [each for each in vars(module).values() if isinstance(each, type) and each.__module__ == module.__name__]
    handler = kind()
    handler.initialize(context)
    replies, statuses = [], []
    for bodies in job["batches"]:
        context.statuses = {}
        replies.append(handler.handle([{"body": body} for body in bodies], context))
        statuses.append(context.statuses)
    return {"replies": replies, "statuses": statuses}


if __name__ == "__main__":
    found = [answers(job) for job in json.load(sys.stdin)]
    json.dump({"importable": [name for name in PACKAGES if importable(name)], "answers": found}, sys.stdout)
