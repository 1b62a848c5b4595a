"""Sequence classification: a label for a text, or for a pair of texts."""

from __future__ import annotations

import json
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
from handlers.text import windows


class SequenceClassification(Handler):
    """{"text", "text_pair"?, "top_k"?} -> {"label", "score"}, or for a top_k above 1 a list of them, best first."""

    task = Task("seq_classification", "AutoModelForSequenceClassification", per_token=False)

    def prepare(self) -> None:
        config = json.loads((self.folder / "config.json").read_text(encoding="utf-8"))
        self.kind = str(config.get("problem_type"))
        # As in transformers' pipeline: the softmax of one label would always be 1.
        if self.kind != "regression" and len(self.labels) == 1:
            self.kind = "multi_label_classification"

    def begin(self, request: Request, _context: Any, _index: int) -> None:
        encodings = self._encode(request.inputs)
        windows.check_tokens(request, [len(encoding) for encoding in encodings], self.pace.allowed, "text")
        request.inputs = [
            {**one, "encoding": encoding, "tokens": len(encoding), "longest": len(encoding)}
            for one, encoding in zip(request.inputs, encodings)
        ]

    def _encode(self, inputs: list[dict[str, Any]]) -> list[Encoding]:
        return self.tokenizer.encode([_texts(one) for one in inputs], self.max_length)

    def answer(self, inputs: list[dict[str, Any]], clock: Clock = UNHURRIED) -> list[Any]:
        encodings = [one.get("encoding") or self._encode([one])[0] for one in inputs]
        answers: list[Any] = [Problem("the text has no tokens", "text") for _ in inputs]
        nonempty = [index for index, encoding in enumerate(encodings) if len(encoding)]
        for run in self.batches([len(encodings[index]) for index in nonempty]):
            chosen = [nonempty[place] for place in run]
            try:
                logits = self.run([encodings[index] for index in chosen], clock)["logits"]
            except Late as late:
                for index in chosen:
                    answers[index] = late
                continue
            for index, row, scores in zip(chosen, logits, self._scores(logits)):
                finite = usable(row) and bool(scores.isfinite().all())
                answers[index] = self._best(scores, inputs[index]) if finite else NotFinite()
        return answers

    def target(self, one: dict[str, Any], clock: Clock = UNHURRIED) -> Target:
        encoding = one.get("encoding") or self._encode([one])[0]
        if not len(encoding):
            raise Problem("the text has no tokens", "text")
        if "target" not in one:
            logits = self.run([encoding], clock)["logits"][0]
            label = int(logits.argmax())
        else:
            label = self.label(one["target"])
        return Target(self.labels[label], encoding, ("text", "text_pair"), lambda out: out.logits[:, label])

    def _scores(self, logits: torch.Tensor) -> torch.Tensor:
        """Scores from logits [batch, labels]: unchanged for regression, a sigmoid for each label, or a softmax over
        all."""
        if self.kind == "regression":
            return logits
        return logits.sigmoid() if self.kind == "multi_label_classification" else logits.softmax(-1)

    def _best(self, scores: torch.Tensor, one: dict[str, Any]) -> Any:
        count = min(int(one.get("top_k", self.settings.get("top_k", 1))), len(self.labels))
        values, places = scores.topk(count)
        ranked = [{"label": self.labels[int(place)], "score": float(value)} for value, place in zip(values, places)]
        many = int(one.get("top_k", self.settings.get("top_k", 1))) > 1
        return ranked if many else ranked[0]


def _texts(one: dict[str, Any]) -> str | tuple[str, str]:
    """A text, or a pair. An empty second text is ignored, as by transformers' tokenizers."""
    return (one["text"], one["text_pair"]) if one.get("text_pair") else one["text"]
