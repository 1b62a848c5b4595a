"""One row of a batch that is being generated, with its own parameters, random numbers and end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from ..text.tokenization import Tokenizer
from .finite import usable

MAX_NEW_TOKENS = 64
"""The default if neither the request nor the archive sets it."""


def never() -> bool:
    """The default of `over` in a runtime's `generate`: no time limit."""
    return False


@dataclass
class Parameters:
    """Parameters of a generation, with the names and meanings of transformers. Without a `seed`, a random one is
    used."""

    max_new_tokens: int = MAX_NEW_TOKENS
    do_sample: bool = False
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int | None = None
    return_full_text: bool = False

    @classmethod
    def of(cls, *layers: dict[str, Any]) -> Parameters:
        """From mappings, later ones overriding earlier ones; unknown names are ignored."""
        values: dict[str, Any] = {}
        for layer in layers:
            values.update({name: value for name, value in layer.items() if name in cls.__dataclass_fields__})
        values = {name: value for name, value in values.items() if value is not None}
        stop = values.get("stop", ())
        values["stop"] = (stop,) if isinstance(stop, str) else tuple(stop)
        for name in ("max_new_tokens", "top_k", "seed"):
            if name in values:
                values[name] = int(values[name])
        return cls(**values)


def penalized(logits: torch.Tensor, tokens: torch.Tensor, penalty: float) -> torch.Tensor:
    """Logits [vocabulary], those of `tokens` divided by the penalty, or multiplied if negative
    (https://arxiv.org/abs/1909.05858)."""
    if penalty == 1.0:
        return logits
    score = logits[tokens]
    return logits.scatter(0, tokens, torch.where(score < 0, score * penalty, score / penalty))


def narrowed(logits: torch.Tensor, temperature: float, top_k: int, top_p: float) -> torch.Tensor:
    """Logits [vocabulary] divided by the temperature. Minus infinity for all but the `top_k` best (0: all), and for all
    but the best that together have the probability `top_p`."""
    logits = logits / temperature
    if 0 < top_k < logits.numel():
        logits = logits.masked_fill(logits < logits.topk(top_k).values[-1], -torch.inf)
    if top_p < 1.0:
        ordered, places = logits.sort()
        drop = ordered.softmax(-1).cumsum(-1) <= 1 - top_p
        drop[-1] = False
        logits = logits.masked_fill(torch.zeros_like(drop).scatter(0, places, drop), -torch.inf)
    return logits


@dataclass
class Row:
    """The tokens of a prompt, and those that were generated after it."""

    prompt: list[int]
    parameters: Parameters
    tokenizer: Tokenizer
    ends: frozenset[int]
    """End-of-text tokens."""
    new: list[int] = field(default_factory=list)
    finish: str | None = None
    """Why it ended: "stop" at an end-of-text token or a stop word, "length" at the limit; None until it ends."""
    broken: bool = False
    """Whether it ended since the model's scores were not finite."""
    text: str = ""
    send: Callable[[str], None] | None = None
    """Called with each part of the text as soon as it is final."""

    def __post_init__(self) -> None:
        self._sent = 0
        self._before = len(self.tokenizer.decode(self.prompt))
        self._random = torch.Generator()
        if self.parameters.seed is None:
            self._random.seed()
        else:
            self._random.manual_seed(self.parameters.seed)

    def choose(self, logits: torch.Tensor) -> int:
        """The next token, by logits [vocabulary]."""
        chosen = self.parameters
        logits = logits.float()
        if not usable(logits):
            self.broken = True
            return 0
        if chosen.repetition_penalty != 1.0:
            previous = torch.tensor(self.prompt + self.new, device=logits.device).unique()  # type: ignore[no-untyped-call]
            logits = penalized(logits, previous, chosen.repetition_penalty)
        if not chosen.do_sample:
            return int(logits.argmax())
        # On the CPU, so that a seed gives the same text on every device.
        odds = narrowed(logits, chosen.temperature, chosen.top_k, chosen.top_p).softmax(-1).cpu()
        return int(torch.multinomial(odds, 1, generator=self._random))

    def accept(self, token: int) -> None:
        """Add a token, and check whether the text ends with it."""
        if self.broken:
            self.finish = "length"
            return
        self.new.append(token)
        if token in self.ends:
            self.finish = "stop"
        elif len(self.new) >= self.parameters.max_new_tokens:
            self.finish = "length"
        if not (self.finish or self.parameters.stop or self.send):
            return
        text = self._written()
        cut = None if token in self.ends else self._cut(text)
        if cut is not None:
            text, self.finish = cut, "stop"
        if self.finish:
            self.text = text
        if self.send:
            self._send(self.send, text if self.finish else self._certain(text))

    def _written(self) -> str:
        """The new text. Some tokenizers drop the space before a first word, so the prompt is decoded with it."""
        return self.tokenizer.decode(self.prompt + self.new)[self._before :]

    def _cut(self, text: str) -> str | None:
        """The text up to its first stop word; None if it has none."""
        places = [place for word in self.parameters.stop if (place := text.find(word)) >= 0]
        return text[: min(places)] if places else None

    def _certain(self, text: str) -> str:
        """The final part of the text so far: without an incomplete character, or a possible start of a stop word."""
        if self.tokenizer.is_byte(self.new[-1]):
            # Byte tokens in a row are decoded together: an invalid one changes the characters before it.
            return text[: self._sent]
        text = text.rstrip("\ufffd")
        length = max(0, len(text) - self.tokenizer.unsettled)
        for word in self.parameters.stop:
            longest = min(len(word) - 1, len(text))
            part = next((size for size in range(longest, 0, -1) if text.endswith(word[:size])), 0)
            length = min(length, len(text) - part)
        return text[:length]

    def _send(self, send: Callable[[str], None], text: str) -> None:
        if len(text) > self._sent:
            send(text[self._sent :])
            self._sent = len(text)
