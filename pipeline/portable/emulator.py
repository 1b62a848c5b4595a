"""Runs an archive's own handler in this process, as TorchServe's worker would."""

from __future__ import annotations

import importlib
import json
import os
import sys
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .protocol import Report


class LocalContext:
    """TorchServe's `ts.context.Context` for a handler, without a server. Unless `hurried`, responseTimeout is None:
    there is no time limit."""

    def __init__(self, model_dir: Path, *, hurried: bool = True) -> None:
        self.manifest = json.loads((model_dir / "MAR-INF" / "MANIFEST.json").read_text(encoding="utf-8"))
        config_file = self.manifest["model"].get("configFile")
        text = (model_dir / config_file).read_text(encoding="utf-8") if config_file else ""
        self.model_yaml_config: dict[str, Any] = yaml.safe_load(text) or {}
        if not hurried:
            self.model_yaml_config["responseTimeout"] = None
        self.model_name = self.manifest["model"]["modelName"]
        self.system_properties: dict[str, Any] = {
            "model_dir": str(model_dir),
            "gpu_id": 0 if self.model_yaml_config.get("deviceType") == "gpu" else None,
            "batch_size": self.model_yaml_config.get("batchSize", 1),
            "server_name": "mar",
            "server_version": "local",
        }
        self.request_ids: dict[int, str] = {}
        self.statuses: dict[int, tuple[int, str]] = {}
        self.metrics = None
        self.explain = False
        """Whether the requests ask for explanations, like those to TorchServe's /explanations."""

    def get_all_request_header(self, _index: int) -> dict[str, str]:
        return {}

    def get_request_header(self, _index: int, key: str) -> str | None:
        return "True" if key == "explain" and self.explain else None

    def get_request_id(self, index: int = 0) -> str:
        return self.request_ids.get(index, str(index))

    def set_response_status(self, code: int = 200, phrase: str = "", idx: int = 0) -> None:
        self.statuses[idx] = (code, phrase)

    def set_response_content_type(self, _index: int, _value: str) -> None:
        pass

    def set_response_header(self, _index: int, _key: str, _value: str) -> None:
        pass


class NotOneClass(ValueError):
    """A handler's file defines no class, or several. (Not a MarError: this module also runs where mar_pipeline is not
    installed.)"""


def load(model_dir: Path, *, hurried: bool = True) -> tuple[Any, LocalContext]:
    """Load the handler of an unpacked archive, and initialize it. Returns the handler and its context. Raises
    NotOneClass, or what the handler raises."""
    os.chdir(model_dir)
    sys.path.insert(0, str(model_dir))
    context = LocalContext(model_dir, hurried=hurried)
    name = context.manifest["model"]["handler"].split(":")[0]
    name = name[: -len(".py")] if name.endswith(".py") else name
    module = importlib.import_module(name)
    classes = [c for c in vars(module).values() if isinstance(c, type) and c.__module__ == module.__name__]
    if len(classes) != 1:
        raise NotOneClass(f"The handler {name}.py defines {len(classes)} classes, and TorchServe wants one.")
    handler = classes[0]()
    handler.initialize(context)
    return handler, context


def answers(job: dict[str, Any], report: Report) -> dict[str, Any]:
    """Send the job's `requests` (JSON values) to the handler of the unpacked archive in `folder`, one by one and, if
    `batched`, also as one batch: {"single": [...], "batched": [...] or None, "statuses": [HTTP status of each],
    "notes": the settings without effect}. With a `corpus`, "tokens" has the result of `tokens`.

    With `explain`, the requests ask for explanations. With `without_transformers`, transformers cannot be imported, as
    a TorchScript archive has to work without it.
    """
    if job.get("without_transformers"):
        sys.modules["transformers"] = None  # type: ignore[assignment]
    report("loading the archive's handler", 0, None)
    # No time limit: the answers must not depend on this machine's speed.
    handler, context = load(Path(job["folder"]), hurried=False)
    context.explain = bool(job.get("explain"))
    requests = job["requests"]
    single, statuses = [], []
    for number, request in enumerate(requests):
        report("asking the archive", number, len(requests))
        context.statuses = {}
        context.request_ids = {0: f"local-{number}"}
        single.append(handler.handle([{"body": request}], context)[0])
        statuses.append(context.statuses.get(0, (200, ""))[0])
    # Archives of other versions may not have notes.
    notes = list(getattr(getattr(handler, "model", None), "notes", ()))
    batched = None
    if job.get("batched"):
        context.statuses = {}
        context.request_ids = {index: f"batch-{index}" for index in range(len(requests))}
        batched = handler.handle([{"body": request} for request in requests], context)
    result = {"single": single, "batched": batched, "statuses": statuses, "notes": notes}
    return {**result, "tokens": tokens(handler, job["corpus"])} if job.get("corpus") else result


def tokens(handler: Any, corpus: dict[str, Any]) -> dict[str, Any]:
    """The results of a handler's tokenizer and chat template for a corpus: {"texts", "pairs": the ids of each, "talks":
    the [prompt, ids] of each, "types": the token types of each pair, "decoded": each text decoded from its ids}. For
    one that is refused, the error's message."""

    def encoded(text: Any, special: bool = True) -> Any:
        try:
            encoding = handler.tokenizer.encode([text], corpus["max_length"], special=special)[0]
        except Exception as error:  # what the tokenizers package raises
            return str(error), str(error)
        return list(encoding.ids), list(encoding.type_ids)

    def ids(text: Any, special: bool = True) -> Any:
        return encoded(text, special)[0]

    def rendered(talk: Any) -> Any:
        try:
            prompt = handler.chat.prompt(talk)
        except Exception as error:
            return str(error)
        return [prompt, ids(prompt, special=False)]

    texts = [ids(text) for text in corpus["texts"]]
    pairs = [encoded(tuple(pair)) for pair in corpus["pairs"]]
    result = {
        "texts": texts,
        "pairs": [one for one, _ in pairs],
        "types": [types for _, types in pairs],
        "decoded": [one if isinstance(one, str) else handler.tokenizer.decode(one) for one in texts]
        if corpus["decode"]
        else [],
    }
    talks = corpus["talks"]
    if talks:
        with at_noon(sys.modules[type(handler.chat).__module__]):
            talks = [rendered(talk) for talk in talks]
    return {**result, "talks": talks}


@contextmanager
def at_noon(module: Any) -> Iterator[None]:
    """Within the context, `module.datetime.now()` always returns the same time: chat templates may write the time."""

    class Noon(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:  # noqa: ARG003 (the signature of datetime)
            return cls(2024, 2, 29, 12)

    with patch.object(module, "datetime", Noon):
        yield
