"""Text generation: what follows a prompt."""

from __future__ import annotations

import json
from typing import Any

from tokenizers import Encoding

from handlers.base import Handler
from handlers.chat import Chat
from handlers.explanation import Target
from handlers.generation import Parameters, Row
from handlers.problem import Problem
from handlers.requests import Request
from handlers.runs import together
from handlers.streaming import Stream


class TextGeneration(Handler):
    """{"prompt" or "messages", "parameters"?, "stream"?} -> {"generated_text", "tokens", "finish_reason"}.

    Parameters of a request come before the archive's `generation` settings, these before the checkpoint's
    generation_config; do_sample is off unless one of the first two says so, so that a model answers the same twice.
    """

    def prepare(self) -> None:
        file = self.folder / "generation_config.json"
        own = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        config = json.loads((self.folder / "config.json").read_text(encoding="utf-8"))
        self.defaults = {
            **{name: own[name] for name in ("temperature", "top_k", "top_p", "repetition_penalty") if own.get(name)},
            **(self.settings.get("generation") or {}),
        }
        ends = own.get("eos_token_id", config.get("eos_token_id"))
        ends = [] if ends is None else [ends] if isinstance(ends, int) else ends
        self.ends = frozenset(int(end) for end in ends)
        self.chat = Chat(self.folder, self.tokenizer.settings)

    def begin(self, request: Request, context: Any, index: int) -> None:
        streamed = [one for one in request.inputs if one.get("stream")]
        if not streamed:
            return
        if request.form != "one":
            raise Problem("only a request of one prompt can be streamed", "stream")
        streamed[0]["stream"] = request.stream = Stream(context, index)

    def answer(self, inputs: list[dict[str, Any]]) -> list[Any]:
        answers: list[Any] = [None] * len(inputs)
        prompts: dict[int, str] = {}
        encodings: dict[int, Encoding] = {}
        rows: dict[int, Row] = {}
        for index, one in enumerate(inputs):
            try:
                # A template writes the special tokens itself.
                chat = "messages" in one
                prompts[index] = self.chat.prompt(one["messages"]) if chat else one["prompt"]
                (encodings[index],) = self.tokenizer.encode([prompts[index]], None, special=not chat)
                rows[index] = self._row(one, encodings[index])
            except Problem as problem:
                answers[index] = problem
        places = list(rows)
        sizes = [(len(row.prompt), row.parameters.max_new_tokens) for row in rows.values()]
        for run in together(sizes, self.max_length):
            chosen = [places[index] for index in run]
            batch = self.tokenizer.batch([encodings[place] for place in chosen], left=True)
            self.model.generate([rows[place] for place in chosen], batch, self.tokenizer.pad)
        for place, row in rows.items():
            answers[place] = {
                "generated_text": (prompts[place] if row.parameters.return_full_text else "") + row.text,
                "tokens": len(row.new),
                "finish_reason": row.finish or "length",
            }
        return answers

    def target(self, one: dict[str, Any]) -> Target:
        """The logit of the next token: of `target`'s first, or the most likely one."""
        (encoding,) = self.tokenizer.encode([one["prompt"]], None)
        if not 0 < len(encoding) <= self.max_length:
            raise Problem(
                f"the prompt has {len(encoding)} tokens, and the model takes {self.max_length}", "prompt", 413
            )
        if "target" in one:
            token = self.tokenizer.encode([one["target"]], None, special=False)[0].ids[0]
        else:
            token = int(self.model.run(self.tokenizer.batch([encoding]))["logits"][0, -1].argmax())
        return Target(self.tokenizer.decode([token]), encoding, ("prompt",), lambda out: out.logits[:, -1, token])

    def _row(self, one: dict[str, Any], encoding: Encoding) -> Row:
        asked = one.get("parameters", {})
        parameters = Parameters.of(self.defaults, asked)
        room = self.max_length - len(encoding)
        if not len(encoding):
            raise Problem("the prompt has no token of the model's", "prompt")
        if room < 1:
            raise Problem(
                f"the prompt has {len(encoding)} tokens, and the model takes {self.max_length}", "prompt", 413
            )
        if asked.get("max_new_tokens", 0) > room:
            raise Problem(
                f"the prompt has {len(encoding)} tokens, which leaves room for {room} of {self.max_length}",
                "parameters.max_new_tokens",
            )
        parameters.max_new_tokens = min(parameters.max_new_tokens, room)
        send = one["stream"].send if one.get("stream") else None
        return Row(list(encoding.ids), parameters, self.tokenizer, self.ends, send=send)
