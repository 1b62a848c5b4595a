"""Token classification: the entities of a text, with their character offsets."""

from __future__ import annotations

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
from handlers.text.entities import Piece, entities
from handlers.text.windows import Cut, cut, cut_all


class TokenClassification(Handler):
    """{"text", "aggregation_strategy"?} -> [{"label", "score", "text", "start", "end"}].

    A text that is longer than the model's input is read in overlapping windows; a token is labelled in the window in
    which it has the most context on both sides.
    """

    task = Task("token_classification", "AutoModelForTokenClassification")

    def begin(self, request: Request, _context: Any, _index: int) -> None:
        cut_all(request, self._cut, self.pace.allowed, "text")

    def _cut(self, one: dict[str, Any]) -> Cut:
        return cut(self.tokenizer, one["text"], self.max_length, self._stride(), self.pace.allowed, "text")

    def _stride(self) -> int:
        stride = int(self.settings.get("stride", self.max_length // 4))
        return min(stride, self.max_length - self.tokenizer.specials - 1)

    def answer(self, inputs: list[dict[str, Any]], clock: Clock = UNHURRIED) -> list[Any]:
        windows: list[Encoding] = []
        owners: list[int] = []
        for index, one in enumerate(inputs):
            _, own = one.get("cut") or self._cut(one)
            windows += own
            owners += [index] * len(own)
        scores: list[torch.Tensor] = [torch.empty(0)] * len(windows)
        late: set[int] = set()
        broken: set[int] = set()
        for run in self.batches([len(window) for window in windows]):
            try:
                logits = self.run([windows[index] for index in run], clock)["logits"]
            except Late:
                late |= {owners[index] for index in run}
                continue
            for index, rows in zip(run, logits):
                rows = rows[: len(windows[index])]
                scores[index] = rows.softmax(-1)
                if not (usable(rows) and bool(scores[index].isfinite().all())):
                    broken.add(owners[index])
        answers: list[Any] = []
        for index, one in enumerate(inputs):
            if index in late or clock.over:
                answers.append(Late())
                continue
            if index in broken:
                answers.append(NotFinite())
                continue
            mine = [(windows[w], scores[w]) for w, owner in enumerate(owners) if owner == index]
            pieces = self._pieces(one["text"], mine, self._stride())
            strategy = one.get("aggregation_strategy", self.settings.get("aggregation_strategy", "simple"))
            answers.append(entities(pieces, self.labels, strategy, one["text"]))
        return answers

    def target(self, one: dict[str, Any], clock: Clock = UNHURRIED) -> Target:
        """The logit of the label `target`, by default of the best one that is not O, at the token of character `at`, by
        default at the token where that label is most likely. A target [token, label] is a token's place in the model's
        input, and a label's number."""
        windows = (one.get("cut") or self._cut(one))[1]
        if isinstance(one.get("target"), list):
            place, label = int(one["target"][0]), self.label(one["target"][1])
            if place >= len(windows[0]):
                raise Problem(f"the model reads {len(windows[0])} tokens", "target")
            return self._at(windows[0], place, label)
        chosen = self.label(one["target"]) if "target" in one else None
        others = [label for label, name in enumerate(self.labels) if name != "O"] or list(range(len(self.labels)))
        best: tuple[float, Encoding, int, int] | None = None
        for window in windows:
            scores = self.run([window], clock)["logits"][0].softmax(-1)
            for index, special in enumerate(window.special_tokens_mask):
                start, end = window.offsets[index]
                if special or ("at" in one and not start <= one["at"] < end):
                    continue
                label = max(others, key=lambda number: float(scores[index, number])) if chosen is None else chosen
                if best is None or float(scores[index, label]) > best[0]:
                    best = (float(scores[index, label]), window, index, label)
        if best is None:
            raise Problem("there is no token at this position", "at" if "at" in one else "text")
        return self._at(*best[1:])

    def _at(self, window: Encoding, index: int, label: int) -> Target:
        return Target(self.labels[label], window, ("text",), lambda out: out.logits[:, index, label])

    def _pieces(self, text: str, windows: list[tuple[Encoding, torch.Tensor]], stride: int) -> list[Piece]:
        """The text's tokens in order, each from the window with the most context around it."""
        pieces: list[Piece] = []
        overlap = 0  # tokens at the window's start that are in the window before it too
        for encoding, scores in windows:
            tokens = [index for index, special in enumerate(encoding.special_tokens_mask) if not special]
            # Take the later half of the shared tokens from this window, the earlier half from the one before.
            keep = overlap // 2
            if overlap:
                del pieces[len(pieces) - (overlap - keep) :]
            pieces += [self._piece(text, encoding, index, scores[index]) for index in tokens[keep:]]
            overlap = stride
        return pieces

    def _piece(self, text: str, encoding: Encoding, index: int, scores: torch.Tensor) -> Piece:
        start, end = encoding.offsets[index]
        if encoding.ids[index] == self.tokenizer.unknown:
            continues = False
        elif self.tokenizer.subword_prefix:
            continues = len(encoding.tokens[index]) != end - start
        else:
            # Byte-level and unigram tokenizers do not mark continuations: as in transformers, a space starts a word.
            continues = start > 0 and " " not in text[start - 1 : start + 1]
        return Piece(start, end, scores, continues)
