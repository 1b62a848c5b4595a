"""Question answering: the span of a context that answers a question."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from tokenizers import Encoding

from handlers.base import Handler
from handlers.explanation import Target
from handlers.problem import Problem
from handlers.spans import best


class QuestionAnswering(Handler):
    """{"question", "context", "top_k"?, "max_answer_length"?, "handle_impossible_answer"?} -> {"answer", "score",
    "start", "end"}, or a list of them, best first, for a top_k above 1. A span is widened to whole words."""

    def answer(self, inputs: list[dict[str, Any]]) -> list[Any]:
        stride = int(self.settings.get("stride", self.max_length // 4))
        answers: list[Any] = [None] * len(inputs)
        windows: list[Encoding] = []
        owners: list[int] = []
        for index, one in enumerate(inputs):
            try:
                found = self.tokenizer.windows((one["question"], one["context"]), self.max_length, stride)
            except ValueError:
                answers[index] = Problem(f"the question fills the model's {self.max_length} tokens", "question", 413)
                continue
            windows += found
            owners += [index] * len(found)
        spans: list[list[dict[str, Any]]] = [[] for _ in inputs]
        nothing = [1.0] * len(inputs)
        for run in self.batches([len(window) for window in windows]):
            out = self.model.run(self.tokenizer.batch([windows[index] for index in run]))
            for row, index in enumerate(run):
                owner = owners[index]
                length = len(windows[index])
                ends = (out["start_logits"][row, :length], out["end_logits"][row, :length])
                found_here, none = self._spans(windows[index], ends, inputs[owner])
                spans[owner] += found_here
                nothing[owner] = min(nothing[owner], none)
        for index, one in enumerate(inputs):
            if answers[index] is None:
                answers[index] = self._best(spans[index], nothing[index], one)
        return answers

    def target(self, one: dict[str, Any]) -> Target:
        """The sum of the logits of an answer's two ends: of `target`, where it first stands, or the best."""
        if "target" in one:
            start = one["context"].find(one["target"])
            if start < 0:
                raise Problem("the context does not hold this answer", "target")
            answer = {"answer": one["target"], "start": start, "end": start + len(one["target"])}
        else:
            (found,) = self.answer([{"question": one["question"], "context": one["context"], "top_k": 1}])
            if isinstance(found, Problem):
                raise found
            answer = found
        stride = int(self.settings.get("stride", self.max_length // 4))
        for window in self.tokenizer.windows((one["question"], one["context"]), self.max_length, stride):
            inside = [
                index
                for index, (start, end) in enumerate(window.offsets)
                if window.sequence_ids[index] == 1 and start < answer["end"] and end > answer["start"]
            ]
            offsets = window.offsets
            if inside and offsets[inside[0]][0] <= answer["start"] and offsets[inside[-1]][1] >= answer["end"]:
                return Target(answer["answer"], window, ("question", "context"), _ends(inside[0], inside[-1]))
        raise Problem("the answer fits in no window of the model's", "target")

    def _most(self, one: dict[str, Any]) -> int:
        return int(one.get("top_k", self.settings.get("top_k", 1)))

    def _spans(
        self, window: Encoding, ends: tuple[torch.Tensor, torch.Tensor], one: dict[str, Any]
    ) -> tuple[list[dict[str, Any]], float]:
        context = torch.tensor([sequence == 1 for sequence in window.sequence_ids])
        null = window.ids.index(self.tokenizer.cls) if self.tokenizer.cls in window.ids else None
        longest = int(one.get("max_answer_length", self.settings.get("max_answer_length", 30)))
        most = self._most(one)
        looked, places = 4 * most, dict[tuple[int, int], float]()
        # Different spans of tokens can be one span of words: more are looked at, until there are enough or no more.
        while True:
            found, none = best(*ends, context, null, longest, looked)
            for score, first, last in found:
                places.setdefault((self._word(window, first)[0], self._word(window, last)[1]), score)
            if len(places) >= most or len(found) < looked:
                break
            looked *= 4
        spans = [
            {"answer": one["context"][start:end], "score": score, "start": start, "end": end}
            for (start, end), score in places.items()
        ]
        return spans, none

    @staticmethod
    def _word(window: Encoding, token: int) -> tuple[int, int]:
        """The characters of the word that a token is of."""
        word = window.token_to_word(token)
        place = window.word_to_chars(word, 1) if word is not None else None
        return place if place is not None else window.offsets[token]

    def _best(self, spans: list[dict[str, Any]], nothing: float, one: dict[str, Any]) -> Any:
        if one.get("handle_impossible_answer", False):
            spans = [*spans, {"answer": "", "score": nothing, "start": 0, "end": 0}]
        ranked: dict[tuple[int, int], dict[str, Any]] = {}
        for span in sorted(spans, key=lambda span: -span["score"]):
            ranked.setdefault((span["start"], span["end"]), span)
        found = list(ranked.values())[: self._most(one)]
        return (
            found if self._most(one) > 1 else found[0] if found else {"answer": "", "score": 0.0, "start": 0, "end": 0}
        )


def _ends(first: int, last: int) -> Callable[[Any], torch.Tensor]:
    """Takes the logits of a span's ends, added, out of a model's outputs."""
    return lambda out: out.start_logits[:, first] + out.end_logits[:, last]
