"""How much a request may ask of a model: its tokens, those of all windows where long texts are read in windows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, List, Tuple

from tokenizers import Encoding

from ..inference.explanation import EXPLAINED, STEPS, WORK
from ..inference.pace import FLOOR, Pace
from ..protocol.problem import Problem
from ..protocol.requests import Request
from .tokenization import Tokenizer

TOKENS = 65_536
"""In all windows of all inputs of one request, on the fastest machine: some 160,000 letters of English, which all have
to be held at once. What a slower one allows is fewer (`pace`)."""

Cut = Tuple[Encoding, List[Encoding]]
"""A text as a whole, and in windows."""


def hold(request: Request, tokens: Sequence[int], allowed: float, field: str) -> None:
    """Raises Problem, of `field`, at the input with which a request has more tokens than are `allowed`."""
    total = 0
    for number, count in enumerate(tokens):
        total += count
        if total > allowed:
            raise _too_many(f"{total} tokens so far", allowed, field).at(request.place(number))


def work(request: Request, pace: Pace) -> float:
    """Seconds that the explanations of a request that was begun take. Raises Problem if these are too many."""
    allowed = min(WORK, max(FLOOR, pace.allowed / EXPLAINED))
    steps, total = 0, 0.0
    for number, one in enumerate(request.inputs):
        steps += one["longest"] * int(one.get("steps", STEPS))
        # What is to be explained is looked for in all windows first.
        total += one["longest"] * int(one.get("steps", STEPS)) + one["tokens"] / EXPLAINED
        if total > allowed:
            raise _too_many(f"{steps} tokens times steps so far", allowed, "steps").at(request.place(number))
    return pace.token * EXPLAINED * total


def cut(
    tokenizer: Tokenizer, text: str | tuple[str, str], max_length: int, stride: int, allowed: float, field: str
) -> Cut:
    """A text (of a pair, the second one) and its windows, as `Tokenizer.windows` has them, unless they would hold more
    tokens than `allowed`, or than TOKENS: their number is known before any is made. Raises Problem, of `field`, and
    ValueError as that does."""
    (whole,) = tokenizer.encode([text], None)
    own = int(isinstance(text, tuple))
    length = sum(1 for sequence in whole.sequence_ids if sequence == own)
    beside = len(whole) - length  # special tokens and a pair's first text: every window has them
    room = max_length - beside
    step = room - (min(stride, room // 2) if own else stride)
    crowded = own and room < 8  # for which `windows` has its own error
    if len(whole) <= max_length and not crowded:
        _hold(len(whole), allowed, field)
        return whole, [whole]
    if step > 0 and not crowded:
        more = max(0, -(-(length - room) // step))
        _hold((1 + more) * beside + length + more * (room - step), allowed, field)
    return whole, tokenizer.windows(text, max_length, stride)


def cut_all(request: Request, one_cut: Callable[[dict[str, Any]], Cut], allowed: float, field: str) -> None:
    """Add each input's windows to it, as "cut", and their tokens. Raises Problem if those of all inputs are more than
    `allowed`, or than TOKENS."""
    tokens = 0
    for number, one in enumerate(request.inputs):
        try:
            found = one_cut(one)
            lengths = [len(window) for window in found[1]]
            tokens += sum(lengths)
            _hold(tokens, allowed, field)
        except Problem as problem:
            raise problem.at(request.place(number)) from None
        request.inputs[number] = {**one, "cut": found, "tokens": sum(lengths), "longest": max(lengths)}


def _hold(tokens: int, allowed: float, field: str) -> None:
    if tokens > min(allowed, TOKENS):
        raise _too_many(f"{tokens} tokens in windows so far", min(allowed, TOKENS), field)


def _too_many(what: str, allowed: float, field: str) -> Problem:
    return Problem(f"{what}, and a request may have {allowed:.0f} on this server", field, 413)
