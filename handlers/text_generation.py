"""Text generation: the continuation of a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from handlers.base import Handler
from handlers.inference import defaults
from handlers.inference.batches import together
from handlers.inference.explanation import Target
from handlers.inference.finite import NotFinite
from handlers.inference.generation import Parameters, Row
from handlers.inference.pace import FLOOR, UNHURRIED, Clock, Late
from handlers.inference.steps import Steps, measured
from handlers.protocol.problem import Problem
from handlers.protocol.requests import Request
from handlers.protocol.streaming import Stream
from handlers.runtimes import Task
from handlers.text.chat import Chat
from handlers.text.windows import check_embedding


class TextGeneration(Handler):
    """{"prompt" or "messages", "parameters"?, "stream"?} -> {"generated_text", "tokens", "finish_reason"}.

    Parameters of a request override the archive's `generation` settings, which override the checkpoint's
    generation_config. do_sample of the latter is ignored, so that answers are deterministic by default.
    """

    task = Task("text_generation", "AutoModelForCausalLM", generates=True)

    def prepare(self) -> None:
        own, self.ends = defaults.read(self.folder, getattr(self.model, "model", None))
        self.limit: int | None = own.pop("max_length", None)
        """The most tokens of prompt and text by default, as the checkpoint has it."""
        self.defaults = {**own, **(self.settings.get("generation") or {})}
        settings = self.tokenizer.settings
        self.chat = Chat(settings["chat_template"], settings["special_tokens"])
        self.steps = Steps()

    def begin(self, request: Request, context: Any, index: int) -> None:
        streamed = [one for one in request.inputs if one.get("stream")]
        if streamed and request.form != "one":
            raise Problem("only a request with one prompt can be streamed", "stream")
        for number, one in enumerate(request.inputs):
            try:
                request.inputs[number] = {**one, **self._read(one, explain=request.explain)}
            except Problem as problem:
                raise problem.at(request.place(number)) from None
        if request.explain:
            return
        self._check_time(request)
        if streamed:
            request.inputs[0]["stream"] = request.stream = Stream(context, index)

    def answer(self, inputs: list[dict[str, Any]], clock: Clock = UNHURRIED) -> list[Any]:
        inputs = [one if "encoding" in one else {**one, **self._read(one)} for one in inputs]
        answers: list[Any] = [Late() for _ in inputs]
        rows = [self._row(one) for one in inputs]
        for run in self._runs(inputs):
            if not clock.begins(self._run_seconds(inputs, run)):
                continue
            batch = self.tokenizer.batch([inputs[index]["encoding"] for index in run], left=True)
            self.model.generate([rows[index] for index in run], batch, self.tokenizer.pad, lambda: clock.over)
        for index, (one, row) in enumerate(zip(inputs, rows)):
            if row.finish is None:
                continue  # its run was not started, or did not finish in time
            if row.broken:
                answers[index] = NotFinite()
                continue
            answers[index] = {
                "generated_text": (one["written"] if row.parameters.return_full_text else "") + row.text,
                "tokens": len(row.new),
                "finish_reason": row.finish,
            }
        return answers

    def seconds(self, inputs: Sequence[dict[str, Any]]) -> float:
        return sum(self._run_seconds(inputs, run) for run in self._runs(inputs))

    def _runs(self, inputs: Sequence[dict[str, Any]]) -> list[list[int]]:
        if self.model.alone:
            return [[index] for index in range(len(inputs))]
        sizes = [(len(one["encoding"]), one["chosen"].max_new_tokens) for one in inputs]
        return together(sizes, self.max_length, self.pace.run)

    def _run_seconds(self, inputs: Sequence[dict[str, Any]], run: Sequence[int]) -> float:
        """Seconds of a run: its padded prompts, and a step for each token of the longest text."""
        longest = max(len(inputs[index]["encoding"]) for index in run)
        return len(run) * longest * self.pace.token + self._steps(inputs, run) * self.steps.seconds(len(run))

    def _steps(self, inputs: Sequence[dict[str, Any]], run: Sequence[int]) -> int:
        steps: int = max(inputs[index]["chosen"].max_new_tokens for index in run)
        return steps

    def _check_time(self, request: Request) -> None:
        """Raises Problem if a request takes longer than allowed."""
        tokens = sum(len(one["encoding"]) + one["chosen"].max_new_tokens for one in request.inputs)
        seconds, allowed = self.seconds(request.inputs), self.pace.request
        if seconds <= allowed or tokens <= FLOOR:
            return
        runs = self._runs(request.inputs)
        step = sum(self.steps.seconds(len(run)) for run in runs)
        steps = sum(self._steps(request.inputs, run) * self.steps.seconds(len(run)) for run in runs)
        new = int((allowed - (seconds - steps)) / step)
        each = " each" if len(request.inputs) > 1 else ""
        raise Problem(
            f"{tokens} tokens in prompts and new ones take this server about {seconds:.0f} s, and a request may take "
            f"{allowed:g} s: " + (f"{new} new tokens{each} fit" if new > 0 else "send fewer, or shorter, prompts"),
            "parameters.max_new_tokens" if request.form == "one" and new > 0 else "",
            413,
        )

    def trial(self) -> None:
        self.pace.token, self.steps = measured(self.model, self.tokenizer, self.max_length)

    def allowance(self) -> str:
        return f"{self.pace.request / self.steps.one:.0f} new tokens after one prompt"

    def target(self, one: dict[str, Any], clock: Clock = UNHURRIED) -> Target:
        """The logit of the next token: the first token of `target`, the token with that id, or the most likely one."""
        encoding = one.get("encoding") or self._read(one, explain=True)["encoding"]
        if isinstance(one.get("target"), str):
            (encoded,) = self.tokenizer.encode([one["target"]], None, special=False)
            check_embedding(encoded, self.tokenizer, self.model.vocabulary, ("target",))
            token = encoded.ids[0]
        else:
            logits = self.run([encoding], clock)["logits"][0, -1]
            token = int(one["target"]) if "target" in one else int(logits.argmax())
            if token >= len(logits):
                raise Problem(f"the model has {len(logits)} tokens", "target")
        return Target(self.tokenizer.decode([token]), encoding, ("prompt",), lambda out: out.logits[:, -1, token])

    def _read(self, one: dict[str, Any], *, explain: bool = False) -> dict[str, Any]:
        """An input for the model: the prompt as `written`, its `encoding`, the parameters `chosen` for it, and its
        number of tokens. Raises Problem."""
        # A chat template adds the special tokens itself.
        chat = "messages" in one
        written = self.chat.prompt(one["messages"]) if chat else one["prompt"]
        (encoding,) = self.tokenizer.encode([written], None, special=not chat)
        own = one.get("parameters", {})
        parameters = Parameters.of(self.defaults, own)
        room = self.max_length - len(encoding)
        if not len(encoding):
            raise Problem("the prompt has no tokens", "prompt")
        if room < (0 if explain else 1):
            raise Problem(
                f"the prompt has {len(encoding)} tokens, and the model allows {self.max_length}", "prompt", 413
            )
        if own.get("max_new_tokens", 0) > room:
            raise Problem(
                f"the prompt has {len(encoding)} tokens, which leaves room for {room} of {self.max_length}",
                "parameters.max_new_tokens",
            )
        if self.limit and "max_new_tokens" not in {**self.defaults, **own}:
            room = max(1, min(room, self.limit - len(encoding)))
        parameters.max_new_tokens = min(parameters.max_new_tokens, room)
        count = len(encoding)
        return {"written": written, "encoding": encoding, "chosen": parameters, "tokens": count, "longest": count}

    def _row(self, one: dict[str, Any]) -> Row:
        send = one["stream"].send if one.get("stream") else None
        return Row(list(one["encoding"].ids), one["chosen"], self.tokenizer, self.ends, send=send)
