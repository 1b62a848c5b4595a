"""Start and end logits to answers."""

from __future__ import annotations

import torch

Span = tuple[float, int, int]
"""Score, first token, last token."""


def best(
    start: torch.Tensor, end: torch.Tensor, context: torch.Tensor, null: int | None, longest: int, most: int
) -> tuple[list[Span], float]:
    """The `most` best spans of one window, best first, and the score of "there is no answer".

    `start` and `end` are logits [tokens], `context` [tokens] says which tokens can be chosen, and `null` is the token
    that stands for no answer (the class token), if there is one. A score is the product of the probabilities of a
    span's two ends, over the context and `null`, as transformers 4's question-answering pipeline has it. A span has
    `longest` tokens at most.
    """
    scored = context.clone()
    if null is not None:
        scored[null] = True
    first, last = (torch.softmax(x.double().masked_fill(~scored, -torch.inf), -1) for x in (start, end))
    none = float(first[null] * last[null]) if null is not None else 0.0
    first, last = first * context, last * context
    scores = torch.triu(first[:, None] * last[None, :])
    scores -= torch.triu(scores, diagonal=longest)
    values, places = scores.flatten().topk(min(most, scores.numel()))
    width = scores.shape[1]
    return [(float(v), int(p) // width, int(p) % width) for v, p in zip(values, places, strict=True) if v > 0], none
