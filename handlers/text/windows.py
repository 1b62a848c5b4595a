"""Limits of a request's tokens, and windows over long texts."""

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
"""The most tokens in all windows of one request: some 160,000 letters of English, which are in memory at once. A slow
machine allows fewer (`pace`)."""

_FIELDS = ("question", "context", "text", "text_pair", "prompt", "messages")
"""The fields with texts of all tasks; those of a pair in its order."""

Cut = Tuple[Encoding, List[Encoding]]
"""The encoding of a whole text, and those of its windows."""


def check_tokens(request: Request, tokens: Sequence[int], allowed: float, field: str) -> None:
    """Raises Problem for `field` of the input at which a request exceeds the `allowed` tokens."""
    total = 0
    for number, count in enumerate(tokens):
        total += count
        if total > allowed:
            raise _too_many(f"{total} tokens so far", allowed, field).at(request.place(number))


def check_embeddings(request: Request, tokenizer: Tokenizer, vocabulary: int | None) -> None:
    """Check the tokens of each input by `check_embedding`."""
    for number, one in enumerate(request.inputs):
        encoding = one["encoding"] if "encoding" in one else one["cut"][0]
        try:
            check_embedding(encoding, tokenizer, vocabulary, [name for name in _FIELDS if name in one])
        except Problem as problem:
            raise problem.at(request.place(number)) from None


def check_embedding(encoding: Encoding, tokenizer: Tokenizer, vocabulary: int | None, fields: Sequence[str]) -> None:
    """Raises Problem for the first token that the model has no embedding for, as one that was added to the tokenizer
    alone. `fields` are the request's fields of the first and second text, `vocabulary` the number of embeddings."""
    if vocabulary is None or max(encoding.ids, default=0) < vocabulary:
        return
    index = next(index for index, token in enumerate(encoding.ids) if token >= vocabulary)
    raise Problem(
        f"the model has no embedding for the token {tokenizer.token(encoding.ids[index])!r}, which its tokenizer has",
        fields[encoding.sequence_ids[index] or 0],
    )


def explanation_seconds(request: Request, pace: Pace) -> float:
    """The estimated seconds for the explanations of a request. Raises Problem if a request may not take as many."""
    allowed = min(WORK, max(FLOOR, pace.allowed / EXPLAINED))
    steps, total = 0, 0.0
    for number, one in enumerate(request.inputs):
        steps += one["longest"] * int(one.get("steps", STEPS))
        # Finding the target runs the model on all windows first.
        total += one["longest"] * int(one.get("steps", STEPS)) + one["tokens"] / EXPLAINED
        if total > allowed:
            raise _too_many(f"{steps} tokens times steps so far", allowed, "steps").at(request.place(number))
    return pace.token * EXPLAINED * total


def cut(
    tokenizer: Tokenizer, text: str | tuple[str, str], max_length: int, stride: int, allowed: float, field: str
) -> Cut:
    """A text (of a pair, the second one) and its windows, by `Tokenizer.windows`.

    Raises Problem for `field` if the windows would have more tokens than `allowed`, or than TOKENS, before it makes
    them; ValueError as `Tokenizer.windows` does.
    """
    (whole,) = tokenizer.encode([text], None)
    own = int(isinstance(text, tuple))
    length = sum(1 for sequence in whole.sequence_ids if sequence == own)
    beside = len(whole) - length  # special tokens and a pair's first text, in every window
    room = max_length - beside
    step = room - (min(stride, room // 2) if own else stride)
    crowded = own and room < 8  # then `Tokenizer.windows` raises
    if len(whole) <= max_length and not crowded:
        _check_windows(len(whole), allowed, field)
        return whole, [whole]
    if step > 0 and not crowded:
        more = max(0, -(-(length - room) // step))
        _check_windows((1 + more) * beside + length + more * (room - step), allowed, field)
    return whole, tokenizer.windows(text, max_length, stride)


def cut_all(request: Request, one_cut: Callable[[dict[str, Any]], Cut], allowed: float, field: str) -> None:
    """Add its windows ("cut") and its number of tokens to each input. Raises Problem if all inputs together have more
    tokens than `allowed`, or than TOKENS."""
    tokens = 0
    for number, one in enumerate(request.inputs):
        try:
            result = one_cut(one)
            lengths = [len(window) for window in result[1]]
            tokens += sum(lengths)
            _check_windows(tokens, allowed, field)
        except Problem as problem:
            raise problem.at(request.place(number)) from None
        request.inputs[number] = {**one, "cut": result, "tokens": sum(lengths), "longest": max(lengths)}


def _check_windows(tokens: int, allowed: float, field: str) -> None:
    if tokens > min(allowed, TOKENS):
        raise _too_many(f"{tokens} tokens in windows so far", min(allowed, TOKENS), field)


def _too_many(what: str, allowed: float, field: str) -> Problem:
    return Problem(f"{what}; a request may have {allowed:.0f} on this server", field, 413)
