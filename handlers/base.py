"""What every task's handler shares: loading, requests one by one, batches by length, one line of log a batch."""

from __future__ import annotations

import importlib
import json
import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from handlers.explanation import STEPS, WORK, Target, check, explain
from handlers.problem import Problem
from handlers.requests import Request, parse
from handlers.runtimes import named, workers
from handlers.tokenization import Tokenizer

logger = logging.getLogger(__name__)

TASKS = {
    "sequence_classification": "seq_classification",
    "token_classification": "token_classification",
    "question_answering": "question_answering",
    "text_generation": "text_generation",
}
"""Mode, as settings have it, -> task, as `schema` has it."""


class Handler:
    """TorchServe's handler: `initialize` once, then `handle` with the rows of each batch."""

    def initialize(self, context: Any) -> None:
        """Load tokenizer and model from the worker's model folder. Raises an error of one sentence if that fails."""
        self.folder = Path(context.system_properties["model_dir"])
        config = dict(context.model_yaml_config or {})
        self.name = str(context.model_name)
        self.settings: dict[str, Any] = dict(config.get("handler") or {})
        self.task = TASKS[self.settings["mode"]]
        self.max_length = int(self.settings["max_length"])
        self.device = _device(context.system_properties.get("gpu_id"))
        if self.device.type == "cpu":
            _share_cores(workers(config))
        self.tokenizer = Tokenizer(self.folder)
        runtime = importlib.import_module(f"handlers.runtimes.{named(self.settings)}")
        self.model = runtime.load(self.folder, config, self.device, self.tokenizer.pad)
        names = self.folder / "index_to_name.json"
        found = json.loads(names.read_text(encoding="utf-8")) if names.exists() else {}
        self.labels = [found[str(index)] for index in range(len(found))]
        self.prepare()

    def prepare(self) -> None:
        """What a task does once, when all is loaded."""

    def label(self, name: str) -> int:
        """The number of a label. Raises Problem if the model has none of that name."""
        if name not in self.labels:
            raise Problem(f"expected one of {', '.join(self.labels[:50])}", "target")
        return self.labels.index(name)

    def _reply(self, request: Request, index: int, context: Any) -> Any:
        """The answer to a request; what is wrong with the first of its inputs that has none, and which that is."""
        reply: Any = None
        for number, answer in enumerate(request.answers):
            if isinstance(answer, Problem):
                reply = _refuse(context, index, answer.at(request.place(number)))
                break
        else:
            reply = request.answer(self.name)
        return request.stream.last(reply) if request.stream else reply

    def target(self, one: dict[str, Any]) -> Target:
        """What of the answer to an input `explain` explains. Raises Problem."""
        raise NotImplementedError

    def _explained(self, request: Request, index: int, context: Any) -> Any:
        work = 0
        for one in request.inputs:
            try:
                steps, target = int(one.get("steps", STEPS)), self.target(one)
                work += steps * len(target.encoding)
                if work > WORK:
                    raise Problem(f"{work} tokens times steps so far, and a request may take {WORK}", "steps", 413)
                request.answers.append(explain(self.model, self.tokenizer, target, one, steps))
            except Problem as problem:
                request.answers.append(problem)
            except Exception as error:
                logger.error("an explanation failed: %s", _where(error))
                request.answers.append(_failed())
        return self._reply(request, index, context)

    def begin(self, request: Request, context: Any, index: int) -> None:
        """What a task does with a request before it is answered among its batch's. Raises Problem."""

    def answer(self, inputs: list[dict[str, Any]]) -> list[Any]:
        """The answer to each input, a Problem where that input is at fault."""
        raise NotImplementedError

    def handle(self, data: list[dict[str, Any]], context: Any) -> list[Any]:
        """One entry for each row: its answer, or what is wrong with it, with its own HTTP code."""
        began = time.perf_counter()
        replies: list[Any] = [None] * len(data)
        requests: dict[int, Request] = {}
        for index, row in enumerate(data):
            try:
                asked = context.get_request_header(index, "explain") == "True"
                request = parse(row, self.task, explain=asked)
                if asked:
                    check(self.model)
                    replies[index] = self._explained(request, index, context)
                    continue
                self.begin(request, context, index)
                requests[index] = request
            except Problem as problem:
                replies[index] = _refuse(context, index, problem)
            except Exception as error:
                logger.error("a request failed: %s", _where(error))
                replies[index] = _refuse(context, index, _failed())
        answers = iter(self._answers([one for request in requests.values() for one in request.inputs]))
        for index, request in requests.items():
            request.answers = [next(answers) for _ in request.inputs]
            replies[index] = self._reply(request, index, context)
        logger.info(
            "requests=%d refused=%d inputs=%d ms=%.1f",
            len(data),
            sum(1 for reply in replies if isinstance(reply, dict) and "error" in reply),
            sum(len(request.inputs) for request in requests.values()),
            1000 * (time.perf_counter() - began),
        )
        return replies

    def _answers(self, inputs: list[dict[str, Any]]) -> list[Any]:
        if not inputs:
            return []
        try:
            return self.answer(inputs)
        except Exception as error:
            # Each by itself, then. But whoever has had a part of an answer cannot be told another.
            again = [len(inputs) > 1 and not (one.get("stream") and one["stream"].sent) for one in inputs]
            if not all(again):
                # Our fault, not the request's: its text is not logged, where it happened is.
                logger.error("an input failed: %s", _where(error))
            return [self._answers([one])[0] if once_more else _failed() for one, once_more in zip(inputs, again)]

    def batches(self, lengths: Sequence[int]) -> list[list[int]]:
        """Indices of encodings of these lengths, as they go through the model together."""
        found: list[list[int]] = self.model.batches(lengths)
        return found


def _refuse(context: Any, index: int, problem: Problem) -> dict[str, Any]:
    context.set_response_status(code=problem.status, phrase=_PHRASES.get(problem.status, "Error"), idx=index)
    return problem.answer()


def _failed() -> Problem:
    return Problem("the model failed on this input; the server's log says where", status=500)


_PHRASES = {400: "Bad Request", 413: "Content Too Large", 500: "Internal Server Error", 501: "Not Implemented"}


def _where(error: BaseException) -> str:
    """An error's type and the places it went through, without its message, which may quote a text."""
    places, trace = [], error.__traceback__
    while trace:
        places.append(f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}")
        trace = trace.tb_next
    return f"{type(error).__name__} at {' > '.join(places)}"


def _device(gpu: Any) -> torch.device:
    if gpu is None or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device(f"cuda:{int(gpu)}")


def _share_cores(workers: int) -> None:
    """Give each of the workers its part of the cores: together they would fight for them otherwise."""
    if "OMP_NUM_THREADS" not in os.environ:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        torch.set_num_threads(max(1, cores // workers))
