"""An archive's own handler, run in this process as TorchServe's worker runs it."""

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
    """What TorchServe's `ts.context.Context` offers a handler, without a server. Unless `hurried`, nobody ends the
    process after responseTimeout."""

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
        """Whether the requests ask for explanations, as TorchServe's /explanations has it."""

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
    """A handler's file defines no class, or several. (Nothing of `mar_pipeline` is imported here: this module runs in
    other environments by its path.)"""


def load(model_dir: Path, *, hurried: bool = True) -> tuple[Any, LocalContext]:
    """The initialized handler of an unpacked archive, and its context, which has `hurried`. Raises what the handler
    raises if it does not load, and NotOneClass unless its file defines one."""
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
    """Answer `requests` (JSON values) by the unpacked archive in `folder`, one by one and, if `batched`, all in one
    batch too: {"single": [...], "batched": [...], "statuses": [HTTP code of each], "notes": what the handler says of
    its settings}. With a `corpus`, "tokens" are what its tokenizer makes of that, as `tokens` has them.

    With `explain`, what is asked for is the answers' explanations. With `without_transformers`, that package cannot be
    imported: what a TorchScript archive promises to do without.
    """
    if job.get("without_transformers"):
        sys.modules["transformers"] = None  # type: ignore[assignment]
    report("loading the archive's handler", 0, None)
    # However slow this machine is, it answers: no limit depends on it.
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
    # An archive that was built by another version may have none.
    notes = list(getattr(getattr(handler, "model", None), "notes", ()))
    batched = None
    if job.get("batched"):
        context.statuses = {}
        context.request_ids = {index: f"batch-{index}" for index in range(len(requests))}
        batched = handler.handle([{"body": request} for request in requests], context)
    found = {"single": single, "batched": batched, "statuses": statuses, "notes": notes}
    return {**found, "tokens": tokens(handler, job["corpus"])} if job.get("corpus") else found


def tokens(handler: Any, corpus: dict[str, Any]) -> dict[str, Any]:
    """What a handler's tokenizer and its chat template make of a corpus: {"texts", "pairs": the ids of each, "talks":
    the [prompt, ids] of each, "types": the token types of each pair, "decoded": the ids of each text as text again}; of
    one that is refused, what is said."""

    def encoded(text: Any, special: bool = True) -> Any:
        try:
            found = handler.tokenizer.encode([text], corpus["max_length"], special=special)[0]
        except Exception as error:  # what the tokenizers package raises
            return str(error), str(error)
        return list(found.ids), list(found.type_ids)

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
    found = {
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
    return {**found, "talks": talks}


@contextmanager
def at_noon(module: Any) -> Iterator[None]:
    """Let a module that has the class `datetime` see one hour that stands still: templates may write the time."""

    class Noon(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:  # noqa: ARG003 (as the class has it)
            return cls(2024, 2, 29, 12)

    with patch.object(module, "datetime", Noon):
        yield
