"""Groups inputs of similar length into runs, the batches that go through the model."""

from __future__ import annotations

from collections.abc import Sequence

RUN_TOKENS = 8192
"""The most tokens of one run, with padding: 64 texts of 128 tokens. More need memory without saving time."""

OVERHEAD = 48
"""The fixed cost of a run, in tokens. Six layers of width 384 take 4 ms for a run and 0.1 ms for each token, which is
40 tokens; wider ones less. Between 32 and 128, the time of a batch differs by less than a tenth."""

NESTED = 1 / 32
"""The cost of a padding token, in tokens, for a model that removes padding after the embedding. Twelve layers of width
768 take 1.5 ms for a token, and 36 us for a padding token."""


def split(lengths: Sequence[int], padding: float = 1, most: float = RUN_TOKENS) -> list[list[int]]:
    """Indices of `lengths` in runs that minimize the total cost: OVERHEAD for a run, 1 for a token, `padding` for a
    padding token. A run has at most `most` tokens and RUN_TOKENS, or a single text."""
    most = int(min(most, RUN_TOKENS))
    order = sorted(range(len(lengths)), key=lambda index: lengths[index])
    # cost[n]: the least cost of the n shortest, without their tokens; begin[n]: the start of their last run.
    cost, begin = [0.0], [0]
    for end in range(1, len(order) + 1):
        longest = lengths[order[end - 1]]
        lowest = max(0, end - max(1, most // max(1, longest)))
        least, start = min(
            (cost[start] + OVERHEAD + padding * (end - start) * longest, start) for start in range(lowest, end)
        )
        cost.append(least)
        begin.append(start)
    runs, end = [], len(order)
    while end:
        runs.append(order[begin[end] : end])
        end = begin[end]
    return runs[::-1]


def filled(lengths: Sequence[int], traced: Sequence[int], rows: int) -> list[list[int]]:
    """Indices of `lengths` in runs for graphs of fixed shapes: a length out of `traced`, and `rows` rows. A run costs
    its graph's length, whatever it contains.

    From the longest to the shortest input, each run is filled before the next one starts. This is optimal. With runs in
    order of length, the runs before the n-th contain at most (n - 1) * rows inputs. So one of the (n - 1) * rows + 1
    longest inputs is in the n-th run or a later one, and the n-th run is at least as long as that input; here it is
    exactly as long. The number of runs is minimal too, and the padding of all such solutions is the same.
    """
    graphs = [next(length for length in sorted(traced) if length >= each) for each in lengths]
    order = sorted(range(len(lengths)), key=lambda index: -graphs[index])
    return [order[at : at + rows] for at in range(0, len(order), rows)]


def together(rows: Sequence[tuple[int, int]], limit: int, prompts: float = RUN_TOKENS) -> list[list[int]]:
    """Indices of `rows` (tokens of the prompt, tokens to generate) in as few runs of a generator as possible.

    A step takes hardly longer for many rows than for one, so padding is cheaper than another run. But a finished row
    stays in its run until the end, so the longest prompt plus the most tokens to generate must not exceed `limit`. The
    prompts of a run, which go through the model at once, have at most `prompts` tokens, or there is only one.
    """
    runs: list[list[int]] = []
    most = 0
    for index in sorted(range(len(rows)), key=lambda index: rows[index]):
        prompt, new = rows[index]  # the longest prompt so far
        most = max(most, new)
        count = len(runs[-1]) + 1 if runs else 0
        if not runs or prompt + most > limit or count * (prompt + most) > RUN_TOKENS or count * prompt > prompts:
            runs.append([])
            most = new
        runs[-1].append(index)
    return runs
