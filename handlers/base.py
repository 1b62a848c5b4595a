"""The base class of the tasks' handlers. It loads the archive, parses requests, batches their inputs by length within
the response time-out, and logs one line for each batch."""

from __future__ import annotations

import importlib
import json
import logging
import math
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from tokenizers import Encoding

from .inference.explanation import STEPS, Target, check, explain
from .inference.pace import SMALL, UNHURRIED, Clock, Late, Pace, groups
from .protocol.problem import Problem
from .protocol.requests import Request, parse
from .runtimes import Task, named, workers
from .text import windows
from .text.tokenization import Tokenizer

logger = logging.getLogger(__name__)


class Handler:
    """TorchServe's handler: `initialize` once, then `handle` with the rows of each batch."""

    task: Task

    def initialize(self, context: Any) -> None:
        """Load tokenizer and model from the worker's model folder. If that fails, the error's message is one
        sentence."""
        self.folder = Path(context.system_properties["model_dir"])
        config = dict(context.model_yaml_config or {})
        self.name = str(context.model_name)
        self.settings: dict[str, Any] = dict(config.get("handler") or {})
        self.max_length = int(self.settings["max_length"])
        self.pace = Pace(config)
        self.device = _device(context.system_properties.get("gpu_id"))
        if self.device.type == "cpu":
            _share_cores(workers(config))
        self.tokenizer = Tokenizer(self.folder)
        runtime = importlib.import_module(f".runtimes.{named(self.settings)}", __package__)
        self.model = runtime.load(self.folder, config, self.device, self.tokenizer.pad, self.task)
        names = self.folder / "index_to_name.json"
        labels = json.loads(names.read_text(encoding="utf-8")) if names.exists() else {}
        self.labels = [labels[str(index)] for index in range(len(labels))]
        self.prepare()
        if math.isfinite(self.pace.timeout):
            self._measure()

    def _measure(self) -> None:
        """Measure the pace, and log what it allows."""
        try:
            # torch.compile compiles at the first requests: a trial would measure the compiler.
            with getattr(self.model, "uncompiled", nullcontext)():
                self.trial()
        except Exception as error:
            logger.warning("requests have no limit of tokens, only of time, since a trial failed: %s", _where(error))
            return
        half = self.pace.request
        logger.info("a request may have %s here, which take half of responseTimeout, %g s", self.allowance(), half)
        if self.max_length * self.pace.token > half:
            logger.warning(
                "an input of %d tokens takes %.1f s here, which is more than half of responseTimeout, %g s: raise it",
                self.max_length,
                self.max_length * self.pace.token,
                half,
            )

    def trial(self) -> None:
        """Measure the time per token, from text to answer."""

        def ask(words: int) -> int:
            request = Request([self.words(words)])
            self.begin(request, None, 0)
            self.answer(request.inputs)
            return int(request.inputs[0]["tokens"])

        self.pace.measure(ask, self.max_length)

    def allowance(self) -> str:
        """The most that a request may have, for the worker's log."""
        return f"{self.pace.allowed:.0f} tokens"

    def words(self, count: int) -> dict[str, Any]:
        """An input of `count` words, for the trial; a word is one token or a few."""
        return {"text": "the " * count}

    def prepare(self) -> None:
        """A task's own preparation, after the model is loaded."""

    def label(self, target: Any) -> int:
        """The index of a label, which is given by its name or its number. Raises Problem if there is no such label."""
        if target in self.labels:
            return self.labels.index(target)
        number = number_of(target)
        if not 0 <= number < len(self.labels):
            numbers = f"or a number from 0 to {len(self.labels) - 1}"
            raise Problem(f"expected one of {', '.join(self.labels[:50])}, {numbers}", "target")
        return number

    def _reply(self, request: Request, index: int, context: Any) -> Any:
        """The answer to a request. If an input failed, the error of the first such input, with its place."""
        reply: Any = None
        for number, answer in enumerate(request.answers):
            if isinstance(answer, Problem):
                reply = _refuse(context, index, answer.at(request.place(number)))
                break
        else:
            reply = request.answer(self.name)
        return request.stream.last(reply) if request.stream else reply

    def target(self, one: dict[str, Any], clock: Clock = UNHURRIED) -> Target:
        """The part of an input's answer that `explain` explains. Raises Problem, also if there is no time."""
        raise NotImplementedError

    def _explained(self, request: Request, index: int, context: Any, clock: Clock) -> Any:
        for one in request.inputs:
            try:
                steps, target = int(one.get("steps", STEPS)), self.target(one, clock)
                request.answers.append(explain(self.model, self.tokenizer, target, one, steps, self.pace, clock))
            except Problem as problem:
                request.answers.append(problem)
            except Exception as error:
                logger.error("an explanation failed: %s", _where(error))
                request.answers.append(_failed())
        return self._reply(request, index, context)

    def begin(self, request: Request, context: Any, index: int) -> None:
        """Tokenize a request's inputs. Sets each input's `tokens`, the number of tokens that the model reads, and
        `longest`, the number in its longest window. Raises Problem, also if there are too many tokens."""
        raise NotImplementedError

    def seconds(self, inputs: Sequence[dict[str, Any]]) -> float:
        """The estimated seconds for tokenized inputs together, from the pace measured at loading."""
        tokens: int = sum(one["tokens"] for one in inputs)
        return self.pace.token * tokens

    def run(self, encodings: Sequence[Encoding], clock: Clock) -> dict[str, torch.Tensor]:
        """The model's outputs for one batch of encodings, by name. Raises Late if there is no time for them."""
        if not clock.begins(self.pace.token * sum(map(len, encodings))):
            raise Late
        outputs: dict[str, torch.Tensor] = self.model.run(self.tokenizer.batch(encodings))
        return outputs

    def answer(self, inputs: list[dict[str, Any]], clock: Clock = UNHURRIED) -> list[Any]:
        """The answer to each input, or a Problem if the input is at fault or there is no time for it."""
        raise NotImplementedError

    def handle(self, data: list[dict[str, Any]], context: Any) -> list[Any]:
        """TorchServe's entry point: for each request in `data` its answer, or an error with its own HTTP status."""
        began, clock = time.perf_counter(), self.pace.clock()
        replies: list[Any] = [None] * len(data)
        requests: dict[int, Request] = {}
        # Servers that only resemble TorchServe may not have this method.
        set_type = getattr(context, "set_response_content_type", lambda *_: None)
        for index, row in enumerate(data):
            set_type(index, "application/json")
            at = "a request"
            try:
                if not clock.open:
                    raise Late
                explained = context.get_request_header(index, "explain") == "True"
                request = parse(row, self.task.name, explain=explained)
                if explained:
                    check(self.model)
                at = "an input"
                self.begin(request, context, index)
                windows.check_embeddings(request, self.tokenizer, self.model.vocabulary)
                request.seconds = (
                    windows.explanation_seconds(request, self.pace) if explained else self.seconds(request.inputs)
                )
                requests[index] = request
            except Problem as problem:
                replies[index] = _refuse(context, index, problem)
            except Exception as error:
                # Our fault, not the request's: its text is not logged, where it happened is.
                logger.error("%s failed: %s", at, _where(error))
                replies[index] = _refuse(context, index, _failed())
        order = list(requests)
        for group in groups([requests[index].seconds for index in order], SMALL * self.pace.timeout):
            for index, reply in self._group({order[place]: requests[order[place]] for place in group}, context, clock):
                replies[index] = reply
        logger.info(
            "requests=%d refused=%d inputs=%d ms=%.1f",
            len(data),
            sum(1 for reply in replies if isinstance(reply, dict) and "error" in reply),
            sum(len(request.inputs) for request in requests.values() if not request.explain),
            1000 * (time.perf_counter() - began),
        )
        return replies

    def _group(self, requests: dict[int, Request], context: Any, clock: Clock) -> Iterator[tuple[int, Any]]:
        """The replies to requests, which are sorted by their estimated time. As many as there is time for are answered
        together, the others get Late."""
        order = list(requests)
        count = len(order) if clock.open else 0
        while count and not clock.fits(self._together([requests[index] for index in order[:count]])):
            count -= 1
        if not count and clock.idle and clock.open:
            count = 1  # an idle worker gives its whole time to the first
        begun = order[:count]
        answered = [index for index in begun if not requests[index].explain]
        answers = iter(self._answers([one for index in answered for one in requests[index].inputs], clock))
        for index in answered:
            requests[index].answers = [next(answers) for _ in requests[index].inputs]
        for index in order:
            if index in begun and requests[index].explain:
                yield index, self._explained(requests[index], index, context, clock)
                continue
            if index not in begun:
                requests[index].answers = [Late()]
            yield index, self._reply(requests[index], index, context)

    def _together(self, requests: Sequence[Request]) -> float:
        """The estimated seconds for requests together."""
        answered = [one for request in requests if not request.explain for one in request.inputs]
        return self.seconds(answered) + sum(request.seconds for request in requests if request.explain)

    def _answers(self, inputs: list[dict[str, Any]], clock: Clock) -> list[Any]:
        if not inputs:
            return []
        try:
            return self.answer(inputs, clock)
        except Exception as error:
            # Retry one by one, except requests that have already streamed a part.
            again = [len(inputs) > 1 and not (one.get("stream") and one["stream"].sent) for one in inputs]
            if not all(again):
                # Our fault, not the request's: its text is not logged, where it happened is.
                logger.error("an input failed: %s", _where(error))
            return [self._answers([one], clock)[0] if once_more else _failed() for one, once_more in zip(inputs, again)]

    def batches(self, lengths: Sequence[int]) -> list[list[int]]:
        """Batches of encodings of these lengths, as lists of indices."""
        batches: list[list[int]] = self.model.batches(lengths, self.pace.run)
        return batches


def number_of(target: Any) -> int:
    """A target's number, which is a text in a form; -1 if it is another text."""
    if isinstance(target, str):
        return int(target) if target.isdecimal() and len(target) < 10 else -1
    return int(target)


def _refuse(context: Any, index: int, problem: Problem) -> dict[str, Any]:
    context.set_response_status(code=problem.status, phrase=_PHRASES.get(problem.status, "Error"), idx=index)
    return problem.answer()


def _failed() -> Problem:
    return Problem("the model failed on this input; the server's log says where", status=500)


_PHRASES = {
    400: "Bad Request",
    413: "Content Too Large",
    500: "Internal Server Error",
    501: "Not Implemented",
    503: "Service Unavailable",
}


def _where(error: BaseException) -> str:
    """An error's type and traceback in one line, without its message, which may quote a text."""
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
    """Give each worker its share of the cores as threads, so that workers do not compete for cores."""
    if "OMP_NUM_THREADS" not in os.environ:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        torch.set_num_threads(max(1, cores // workers))
