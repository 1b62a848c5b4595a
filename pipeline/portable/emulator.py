"""Runs an archive's own handler in this process, as TorchServe's worker would."""

from __future__ import annotations

import json
import logging
import sys
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from . import foreign
from .handler import load

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .protocol import Report


class Asked:
    """A loaded handler of ours, asked as TorchServe's worker asks it."""

    def __init__(self, folder: Path, *, explain: bool) -> None:
        # No time limit: the answers must not depend on this machine's speed.
        self.handler, self._handle, self.context = load(folder, hurried=False)
        self.context.explain = explain
        # Archives of other versions may not have notes.
        self.notes = list(getattr(getattr(self.handler, "model", None), "notes", ()))
        self.hints: list[str] = []

    def __call__(self, requests: list[Any], name: str) -> list[Any]:
        """The replies to a batch."""
        self.context.begin(len(requests), name)
        return list(self._handle([{"body": request} for request in requests], self.context))


def answers(job: dict[str, Any], report: Report) -> dict[str, Any]:
    """Send the job's `requests` (JSON values) to the handler of the unpacked archive in `folder`, one by one:
    {"single": [...], "statuses": [HTTP status of each], "notes": the settings without effect, "hints": what to know of
    how the handler was asked, "errors": what it logged as errors}. With a `corpus`, "tokens" has the result of
    `tokens`.

    With `batched`, also {"again": the answers, asked one by one from the last to the first, "batched": the answers as
    one batch, "beside": [the numbers of a short and a long request, the answers of both in one run of the model]}.

    With `explain`, the requests ask for explanations. With `without_transformers`, transformers cannot be imported, as
    a TorchScript archive has to work without it. `foreign`: the archive is of another tool, and its handler's errors
    are expected.
    """
    if job.get("without_transformers"):
        sys.modules["transformers"] = None  # type: ignore[assignment]
    report("loading the archive's handler", 0, None)
    requests = job["requests"]
    errors = _Errors()
    logging.getLogger().addHandler(errors)
    asked = (foreign.Asked if job.get("foreign") else Asked)(Path(job["folder"]), explain=bool(job.get("explain")))

    def ask(*numbers: int) -> list[Any]:
        return asked([requests[number] for number in numbers], f"local-{numbers[0]}")

    single, statuses = [], []
    for number in range(len(requests)):
        report("asking the archive", number, len(requests))
        single += ask(number)
        statuses.append(asked.context.status(0))
    result = {"single": single, "statuses": statuses, "notes": asked.notes, "hints": asked.hints}
    result["errors"] = errors.messages
    if job.get("batched"):
        report("asking the archive in other orders", 0, None)
        result["again"] = [ask(number)[0] for number in reversed(range(len(requests)))][::-1]
        result["batched"] = ask(*range(len(requests)))
        with _one_run():
            result["beside"] = [[pair, ask(*pair)] for pair in _beside(requests)]
    return {**result, "tokens": tokens(asked.handler, job["corpus"])} if job.get("corpus") else result


class _Errors(logging.Handler):
    """Keeps the messages of logged errors."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


def _beside(requests: list[Any]) -> list[tuple[int, int]]:
    """Numbers of the shortest request with each of the two longest."""
    order = sorted(range(len(requests)), key=lambda number: len(json.dumps(requests[number])))
    return [(order[0], other) for other in order[1:][-2:]]


@contextmanager
def _one_run() -> Iterator[None]:
    """Within the context, handlers put short and long texts into one run of the model, whatever it costs."""
    batches = sys.modules.get("handlers.inference.batches")
    if not hasattr(batches, "OVERHEAD"):
        yield
        return
    with patch.object(batches, "OVERHEAD", 1_000_000):
        yield


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
