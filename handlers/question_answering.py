"""Question answering: the span of a context that answers a question."""

from __future__ import annotations

from collections.abc import Callable
from heapq import nlargest
from typing import Any

import torch
from tokenizers import Encoding

from handlers.base import Handler
from handlers.inference.explanation import Target
from handlers.inference.finite import NotFinite, usable
from handlers.inference.pace import UNHURRIED, Clock, Late
from handlers.protocol.problem import Problem
from handlers.protocol.requests import Request
from handlers.runtimes import Task
from handlers.text.spans import Span, best, spaced
from handlers.text.windows import Cut, cut, cut_all


class QuestionAnswering(Handler):
    """{"question", "context", "top_k"?, "max_answer_length"?, "handle_impossible_answer"?, "align_to_words"?} ->
    {"answer", "score", "start", "end"}, or for a top_k above 1 a list of them, best first. With align_to_words, spans
    are widened to whole words; by default, but for words in scripts that are written without spaces."""

    task = Task("question_answering", "AutoModelForQuestionAnswering", ("start_logits", "end_logits"))

    def begin(self, request: Request, _context: Any, _index: int) -> None:
        cut_all(request, self._cut, self.pace.allowed, "context")

    def _cut(self, one: dict[str, Any]) -> Cut:
        stride = int(self.settings.get("stride", self.max_length // 4))
        try:
            texts = (one["question"], one["context"])
            return cut(self.tokenizer, texts, self.max_length, stride, self.pace.allowed, "context")
        except ValueError:
            raise Problem(f"the question takes all of the model's {self.max_length} tokens", "question", 413) from None

    def words(self, count: int) -> dict[str, Any]:
        return {"question": "the", "context": "the " * count}

    def answer(self, inputs: list[dict[str, Any]], clock: Clock = UNHURRIED) -> list[Any]:
        answers: list[Any] = [None] * len(inputs)
        words: dict[int, dict[int, tuple[int, int]]] = {}
        windows: list[Encoding] = []
        owners: list[int] = []
        for index, one in enumerate(inputs):
            try:
                whole, own = one.get("cut") or self._cut(one)
                words[index] = self._words(whole, one)
            except Problem as problem:
                answers[index] = problem
                continue
            windows += own
            owners += [index] * len(own)
        spans: list[dict[tuple[int, int], float]] = [{} for _ in inputs]
        nothing = [1.0] * len(inputs)
        for run in self.batches([len(window) for window in windows]):
            try:
                out = self.run([windows[index] for index in run], clock)
            except Late as late:
                for index in run:
                    answers[owners[index]] = late
                continue
            for row, index in enumerate(run):
                owner = owners[index]
                length = len(windows[index])
                ends = (out["start_logits"][row, :length], out["end_logits"][row, :length])
                if not all(map(usable, ends)):
                    answers[owner] = NotFinite()
                    continue
                candidates, none = self._spans(windows[index], words[owner], ends, inputs[owner])
                for score, start, end in candidates:
                    spans[owner][start, end] = max(score, spans[owner].get((start, end), 0.0))
                # A span that is not among the best so far cannot be among the best of all windows.
                spans[owner] = dict(nlargest(self._most(inputs[owner]), spans[owner].items(), key=lambda span: span[1]))
                nothing[owner] = min(nothing[owner], none)
        for index, one in enumerate(inputs):
            if answers[index] is None:
                answers[index] = self._best(spans[index], nothing[index], one)
        return answers

    def target(self, one: dict[str, Any], clock: Clock = UNHURRIED) -> Target:
        """The sum of an answer's start and end logits: of the first occurrence of `target`, or of the best answer. A
        number as target is the place of a token in the model's input, which begins and ends the answer."""
        if "target" in one and not isinstance(one["target"], str):
            return self._token(int(one["target"]), (one.get("cut") or self._cut(one))[1][0])
        if "target" in one:
            start = one["context"].find(one["target"])
            if start < 0:
                raise Problem("the context does not contain this answer", "target")
            answer = {"answer": one["target"], "start": start, "end": start + len(one["target"])}
        else:
            (result,) = self.answer([{**one, "top_k": 1}], clock)
            if isinstance(result, Problem):
                raise result
            answer = result
        _, windows = one.get("cut") or self._cut(one)
        # The model's own answer may end in a word that continues in the next window: use the window with most of it.
        overlaps: list[tuple[int, Encoding, int, int]] = []
        for window in windows:
            inside = [
                index
                for index, (start, end) in enumerate(window.offsets)
                if window.sequence_ids[index] == 1 and start < answer["end"] and end > answer["start"]
            ]
            if inside:
                start = max(answer["start"], window.offsets[inside[0]][0])
                end = min(answer["end"], window.offsets[inside[-1]][1])
                overlaps.append((end - start, window, inside[0], inside[-1]))
        if "target" in one:
            overlaps = [each for each in overlaps if each[0] == answer["end"] - answer["start"]]
        if not overlaps:
            raise Problem("the answer does not fit into one of the model's windows", "target")
        _, window, first, last = max(overlaps, key=lambda each: each[0])
        return Target(answer["answer"], window, ("question", "context"), _ends(first, last))

    def _token(self, index: int, window: Encoding) -> Target:
        if index >= len(window):
            raise Problem(f"the model reads {len(window)} tokens", "target")
        return Target(window.tokens[index], window, ("question", "context"), _ends(index, index))

    def _most(self, one: dict[str, Any]) -> int:
        return int(one.get("top_k", self.settings.get("top_k", 1)))

    def _words(self, whole: Encoding, one: dict[str, Any]) -> dict[int, tuple[int, int]]:
        """The character offsets of the context's words that spans are widened to, by the words' numbers. They are of
        the whole context: a window's edge may cut a word."""
        aligned = one.get("align_to_words", self.settings.get("align_to_words"))
        if aligned is False:
            return {}
        numbers = {word for word, own in zip(whole.word_ids, whole.sequence_ids) if own == 1 and word is not None}
        places = {number: place for number in numbers if (place := whole.word_to_chars(number, 1))}
        return {number: place for number, place in places.items() if aligned or spaced(one["context"][slice(*place)])}

    def _spans(
        self,
        window: Encoding,
        words: dict[int, tuple[int, int]],
        ends: tuple[torch.Tensor, torch.Tensor],
        one: dict[str, Any],
    ) -> tuple[list[Span], float]:
        context = torch.tensor([sequence == 1 for sequence in window.sequence_ids])
        null = window.ids.index(self.tokenizer.cls) if self.tokenizer.cls in window.ids else None
        longest = int(one.get("max_answer_length", self.settings.get("max_answer_length", 30)))
        places = [
            words.get(word, place) if sequence == 1 and word is not None else place
            for sequence, word, place in zip(window.sequence_ids, window.word_ids, window.offsets)
        ]
        return best(*ends, context, places, null, longest, self._most(one))

    def _best(self, spans: dict[tuple[int, int], float], nothing: float, one: dict[str, Any]) -> Any:
        if one.get("handle_impossible_answer", False):
            spans = {**spans, (0, 0): nothing}
        ranked = sorted(spans.items(), key=lambda span: -span[1])[: self._most(one)]
        answers = [
            {"answer": one["context"][start:end], "score": score, "start": start, "end": end}
            for (start, end), score in ranked
        ]
        if self._most(one) > 1:
            return answers
        return answers[0] if answers else {"answer": "", "score": 0.0, "start": 0, "end": 0}


def _ends(first: int, last: int) -> Callable[[Any], torch.Tensor]:
    """A function of a model's outputs: the sum of the start logit of `first` and the end logit of `last`."""
    return lambda out: out.start_logits[:, first] + out.end_logits[:, last]
