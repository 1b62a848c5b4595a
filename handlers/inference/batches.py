"""Which inputs go through the model together: runs of like length."""

from __future__ import annotations

from collections.abc import Sequence

RUN_TOKENS = 8192
"""Tokens, padding counted, of one run of the model at most: 64 texts of 128. More take memory, and no less time."""

OVERHEAD = 48
"""What a run costs by itself, in tokens of padding. Six layers 384 wide take 4 ms for a run and 0.1 ms more for each of
its tokens, so 40; wider ones less. From 32 to 128 the time of a batch is the same within a tenth."""

NESTED = 1 / 32
"""What a token of padding costs a model that leaves padding out, in tokens: it is embedded, and that is all. Twelve
layers 768 wide take 1.5 ms for a token, and 36 us for one of padding."""


def split(lengths: Sequence[int], padding: float = 1, most: float = RUN_TOKENS) -> list[list[int]]:
    """Indices of `lengths` in runs that take the least time together, if a run takes OVERHEAD, its tokens, and its
    `padding` tokens as many times that; of `most` tokens each, or one text, and never more than RUN_TOKENS."""
    most = int(min(most, RUN_TOKENS))
    order = sorted(range(len(lengths)), key=lambda index: lengths[index])
    # cost[n]: the least for the n shortest, less their tokens; begin[n]: where the last of their runs begins.
    cost, begin = [0.0], [0]
    for end in range(1, len(order) + 1):
        longest = lengths[order[end - 1]]
        lowest = max(0, end - max(1, most // max(1, longest)))
        least, start = min(
            (cost[start] + OVERHEAD + padding * (end - start) * longest, start) for start in range(lowest, end)
        )
        cost.append(least)
        begin.append(start)
    found, end = [], len(order)
    while end:
        found.append(order[begin[end] : end])
        end = begin[end]
    return found[::-1]


def filled(lengths: Sequence[int], traced: Sequence[int], rows: int) -> list[list[int]]:
    """Indices of `lengths` in runs of graphs that were made for one length each, of those `traced`, and for so many
    `rows`. A run takes its graph's length, whatever is in it.

    From the longest to the shortest, each run is filled before the next one begins. No other way takes less: with runs
    in order of length, those before the n-th hold (n - 1) * rows inputs at most, so among that many of the longest and
    one more there is one that the n-th run or a later one has to hold, and so the n-th is at least as long as that;
    here it is just as long. There are as few runs as can be, too, and of all such ways the padding is the same.
    """
    graphs = [next(length for length in sorted(traced) if length >= each) for each in lengths]
    order = sorted(range(len(lengths)), key=lambda index: -graphs[index])
    return [order[at : at + rows] for at in range(0, len(order), rows)]


def together(rows: Sequence[tuple[int, int]], limit: int, prompts: float = RUN_TOKENS) -> list[list[int]]:
    """Indices of `rows` (tokens of the prompt, tokens to come) in as few runs of a generator as may be.

    A step takes hardly longer for many rows than for one, so padding is cheaper than a run more. But a row that has
    ended goes on with its run: so the longest prompt and the most tokens to come have to be in the `limit` together.
    The `prompts` of a run, which go through the model at once, have so many tokens at most, or are one.
    """
    found: list[list[int]] = []
    most = 0
    for index in sorted(range(len(rows)), key=lambda index: rows[index]):
        prompt, new = rows[index]  # the longest prompt so far
        most = max(most, new)
        count = len(found[-1]) + 1 if found else 0
        if not found or prompt + most > limit or count * (prompt + most) > RUN_TOKENS or count * prompt > prompts:
            found.append([])
            most = new
        found[-1].append(index)
    return found
