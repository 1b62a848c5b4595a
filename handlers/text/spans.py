"""Selects answer spans from start and end logits."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Tuple

import torch
from torch.nn.functional import pad

Span = Tuple[float, int, int]
"""Score, start and end (exclusive) in characters."""

_UNSPACED = re.compile(
    "[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u1950-\u19df\u1a20-\u1aaf\u3005-\u3007\u3021-\u3029\u3031-\u3035"
    "\u3038-\u303c\u3041-\u312f\u31a0-\u31bf\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\ua9e0-\ua9ff\uaa60-\uaa7f"
    "\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff]"
)
"""Scripts that are written without spaces between words: Thai, Lao, Tibetan, Burmese, Khmer, Tai, Chinese, Japanese."""


def spaced(word: str) -> bool:
    """Whether a tokenizer's word can be a word: those of scripts without spaces are whole sentences to most
    tokenizers."""
    return not _UNSPACED.search(word)


def best(
    start: torch.Tensor,
    end: torch.Tensor,
    context: torch.Tensor,
    words: Sequence[tuple[int, int]],
    null: int | None,
    longest: int,
    most: int,
) -> tuple[list[Span], float]:
    """The `most` best spans of one window in whole words, best first, and the score of "no answer".

    `start` and `end` are logits [tokens], `context` [tokens] is a mask of the tokens that may be chosen, `words` has
    the character offsets of each token or its word, and `null` is the index of the token for "no answer" (the class
    token), if there is one. The score of a span of at most `longest` tokens is the product of its start and end
    probabilities, with a softmax over the context and `null`, as in transformers 4's question-answering pipeline. The
    score of a span of words is the best of its token spans. Empty spans are dropped.
    """
    scored = context.clone()
    if null is not None:
        scored[null] = True
    first, last = (torch.softmax(x.double().masked_fill(~scored, -torch.inf), -1) for x in (start, end))
    none = float(first[null] * last[null]) if null is not None else 0.0
    first, last = first * context, last * context
    # [first token, tokens to the last one]; only as wide as needed, since most answers are short.
    width = min(longest, len(words))
    scores = first[:, None] * pad(last, (0, width - 1)).unfold(0, width, 1)
    # The same for characters: [first character, ends of words from the same token's word on].
    lefts, left, sizes = torch.unique_consecutive(
        torch.tensor([start for start, _ in words]), return_inverse=True, return_counts=True
    )
    rights, right = torch.unique_consecutive(torch.tensor([end for _, end in words]), return_inverse=True)
    begins = right[sizes.cumsum(0) - sizes]
    columns = pad(right, (0, width - 1), value=len(rights) - 1).unfold(0, width, 1) - begins[left][:, None]
    wide = int(columns.max()) + 1
    table = scores.new_zeros(len(lefts) * wide)
    table.scatter_reduce_(0, (left[:, None] * wide + columns).flatten(), scores.flatten(), "amax")
    froms = lefts.repeat_interleave(wide)
    untils = pad(rights, (0, wide), value=-1)[begins[:, None] + torch.arange(wide)].flatten()
    values, chosen = table.masked_fill(untils <= froms, 0.0).topk(min(most, len(table)))
    spans = zip(values.tolist(), froms[chosen].tolist(), untils[chosen].tolist())
    return [span for span in spans if span[0] > 0], none
