"""How much a request may ask of a model that reads long texts in windows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, List, Tuple

from tokenizers import Encoding

from handlers.problem import Problem
from handlers.requests import Request
from handlers.tokenization import Tokenizer

TOKENS = 65_536
"""In all windows of all inputs of one request: some 160,000 letters of English. Six layers 384 wide take 7 seconds for
them on one core (`runs.OVERHEAD`), a model like BERT about a minute, while everybody else waits; after two minutes the
server would end the worker."""

Cut = Tuple[Encoding, List[Encoding]]
"""A text as a whole, and in windows."""


def cut(tokenizer: Tokenizer, text: str | tuple[str, str], max_length: int, stride: int, field: str) -> Cut:
    """A text (of a pair, the second one) and its windows, as `Tokenizer.windows` has them, unless they would hold more
    than TOKENS: their number is known before any is made. Raises Problem, of `field`, and ValueError as that does."""
    (whole,) = tokenizer.encode([text], None)
    own = int(isinstance(text, tuple))
    length = sum(1 for sequence in whole.sequence_ids if sequence == own)
    beside = len(whole) - length  # special tokens and a pair's first text: every window has them
    room = max_length - beside
    step = room - (min(stride, room // 2) if own else stride)
    crowded = own and room < 8  # for which `windows` has its own error
    if len(whole) <= max_length and not crowded:
        _hold(len(whole), field)
        return whole, [whole]
    if step > 0 and not crowded:
        more = max(0, -(-(length - room) // step))
        _hold((1 + more) * beside + length + more * (room - step), field)
    return whole, tokenizer.windows(text, max_length, stride)


def cut_all(request: Request, one_cut: Callable[[dict[str, Any]], Cut], field: str) -> None:
    """Add each input's windows to it, as "cut". Raises Problem if those of all inputs have more than TOKENS."""
    tokens = 0
    for number, one in enumerate(request.inputs):
        try:
            found = one_cut(one)
            tokens += sum(len(window) for window in found[1])
            _hold(tokens, field)
        except Problem as problem:
            raise problem.at(request.place(number)) from None
        request.inputs[number] = {**one, "cut": found}


def _hold(tokens: int, field: str) -> None:
    if tokens > TOKENS:
        raise Problem(f"{tokens} tokens in windows so far, and a request may have {TOKENS}", field, 413)
