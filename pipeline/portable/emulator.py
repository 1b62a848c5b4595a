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


_TOGETHER = 16
"""The texts of a corpus that are padded to one batch."""


def tokens(handler: Any, corpus: dict[str, Any]) -> dict[str, list[Any]]:
    """The results of a handler's tokenizer and chat template for a corpus, in the form of
    `workers.tokenization.expected`. For what is refused, the error's message."""
    texts = _encoded(handler, corpus["texts"], corpus["max_length"])
    pairs = _encoded(handler, [tuple(pair) for pair in corpus["pairs"]], corpus["max_length"])
    if not corpus["talks"]:
        return {"texts": texts, "pairs": pairs, "talks": []}
    with at_noon(sys.modules[type(handler.chat).__module__]):
        prompts = [_prompt(handler, talk) for talk in corpus["talks"]]
    written = [prompt[0] for prompt in prompts if isinstance(prompt, list)]
    rows = iter(_encoded(handler, written, corpus["max_length"], special=False))
    talks = [{"prompt": one[0], **next(rows)} if isinstance(one, list) else one for one in prompts]
    return {"texts": texts, "pairs": pairs, "talks": talks}


def _prompt(handler: Any, talk: Any) -> Any:
    """A rendered conversation in a list, or the error's message."""
    try:
        return [handler.chat.prompt(talk)]
    except Exception as error:
        return str(error)


def _encoded(handler: Any, texts: list[Any], max_length: Any, *, special: bool = True) -> list[Any]:
    """The tokens of each text as the model gets them, from padded batches; of a text that is refused, the message."""
    tokenizer = handler.tokenizer
    results: list[Any] = []
    for text in texts:
        try:
            results.append(tokenizer.encode([text], max_length, special=special)[0])
        except Exception as error:  # what the tokenizers package raises
            results.append(str(error))
    encodings = [one for one in results if not isinstance(one, str)]
    typed = "token_type_ids" in tokenizer.settings["model_input_names"]
    rows = []
    for begin in range(0, len(encodings), _TOGETHER):
        group = encodings[begin : begin + _TOGETHER]
        batch = tokenizer.batch(group, left=handler.task.generates)
        masks = batch["attention_mask"].bool()
        for index, encoding in enumerate(group):
            ids = batch["input_ids"][index][masks[index]].tolist()
            rows.append(
                {
                    "ids": ids,
                    "segments": batch["token_type_ids"][index][masks[index]].tolist() if typed else None,
                    "special": list(encoding.special_tokens_mask),
                    "offsets": [list(place) for place in encoding.offsets],
                    "decoded": tokenizer.decode(ids),
                }
            )
    made = iter(rows)
    return [one if isinstance(one, str) else next(made) for one in results]


@contextmanager
def at_noon(module: Any) -> Iterator[None]:
    """Within the context, `module.datetime.now()` always returns the same time: chat templates may write the time."""

    class Noon(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:  # noqa: ARG003 (the signature of datetime)
            return cls(2024, 2, 29, 12)

    with patch.object(module, "datetime", Noon):
        yield
