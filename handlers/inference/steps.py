"""Measures a generator at load time: seconds for a prompt token, and for a step, which generates a token for each
row."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from ..text.tokenization import Tokenizer
from .generation import Parameters, Row

_ROWS = 8
"""Rows of a trial with several."""

_NEW = 4
"""Tokens to generate for each row of a trial; the time of the first includes the prompt."""

_SECONDS = 0.5
"""The longest time for the prompt of a trial."""


@dataclass
class Steps:
    """Seconds of a step: `one` for one row, and `more` for each further row."""

    one: float = 0.0
    more: float = 0.0

    def seconds(self, rows: int) -> float:
        """The seconds of a step with so many rows."""
        return self.one + (rows - 1) * self.more


class _Timed(Row):
    """A row that records the time of each token. It samples, the slowest way to choose tokens."""

    def __init__(self, prompt: list[int], tokenizer: Tokenizer) -> None:
        parameters = {"max_new_tokens": _NEW, "do_sample": True, "top_p": 0.9, "repetition_penalty": 1.1, "seed": 0}
        super().__init__(prompt, Parameters.of(parameters), tokenizer, frozenset())
        self.times: list[float] = []
        self._last = time.perf_counter()

    def accept(self, token: int) -> None:
        super().accept(token)
        now = time.perf_counter()
        self.times.append(now - self._last)
        self._last = now


def measured(model: Any, tokenizer: Tokenizer, max_length: int) -> tuple[float, Steps]:
    """Seconds for a token of a prompt, and for steps. Raises ValueError if the model has no room for a trial."""
    most = max_length - _NEW
    if most < 1:
        raise ValueError(f"{max_length} tokens leave no room for {_NEW} new ones")
    text = " ".join(["the"] * max_length)

    def generate(rows: int, prompt: int) -> tuple[float, float]:
        """Seconds until the first token, and for a step."""
        (encoding,) = tokenizer.encode([text], prompt)
        timed = [_Timed(list(encoding.ids), tokenizer) for _ in range(rows)]
        model.generate(timed, tokenizer.batch([encoding] * rows), tokenizer.pad)
        first, *steps = timed[-1].times
        return first, min(steps)

    short = min(8, most)
    generate(1, short)  # warms up
    first, step = generate(1, short)
    prompt = min(most, 128, max(short, int(short * _SECONDS / max(first, 1e-9))))
    first, step = generate(1, prompt)
    token = max(first - step, first / 10) / prompt
    # With many rows, a row takes as long as a token of a prompt.
    several = generate(_ROWS, short)[1] if first < 2 * _SECONDS else step + (_ROWS - 1) * token
    return token, Steps(step, max(0.0, several - step) / (_ROWS - 1))
