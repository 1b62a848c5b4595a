"""The tables, as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from .archives import MAX_BATCH_DELAY, MAX_LENGTH
from .cells import Cell
from .machine import Facts, line
from .plan import LEAST, Plan
from .quiet import LIMIT
from .starts import Start
from .targets import Target
from .workloads import Workload

Item = TypeVar("Item")


def rows(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *body]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def markdown(
    facts: Facts,
    plan: Plan,
    texts: Sequence[Workload],
    targets: Sequence[Target],
    cells: Sequence[Cell],
    starts: Sequence[Start],
) -> str:
    """The whole page."""
    parts = ["# Serving", line(facts) + ".\n" + _busy(cells)]
    parts += ["## Reached?", _targets(targets), "## How", _how(plan, texts)]
    for title, kinds in (
        ("Classifiers", ("alone", "served")),
        ("Generation", ("generation",)),
        ("Threads", ("threads",)),
        ("A busy process beside the worker", ("busy",)),
    ):
        if chosen := [cell for cell in cells if cell.section in kinds]:
            parts += [f"## {title}", _columns(_CELLS, chosen)]
    if starts:
        parts += ["## Workers", _columns(_STARTS, starts)]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _busy(cells: Sequence[Cell]) -> str:
    """A warning, if other processes were at work."""
    disturbed = sum(cell.others > LIMIT for cell in cells)
    if not disturbed:
        return ""
    return f"\n**Other processes were at work** in {disturbed} of {len(cells)} cells: those whose spread is bold.\n"


def _targets(targets: Sequence[Target]) -> str:
    def one(target: Target) -> Sequence[str]:
        goal = f"{'at least' if target.least else 'at most'} {target.goal:g} {target.unit}"
        measured = "not measured" if target.measured is None else f"{target.measured:.3g} {target.unit}"
        return target.name, goal, measured, {True: "yes", False: "**no**", None: "-"}[target.reached]

    return rows(("what", "target", "measured", "reached"), map(one, targets))


def _how(plan: Plan, texts: Sequence[Workload]) -> str:
    lines = [
        f"{plan.rounds} rounds of {plan.seconds:g} s a cell and {LEAST} answers at least, contenders in turn. "
        "A rate is the median of the rounds, its spread how far apart they lie; p50 and p99 are of all their answers, "
        "so below 100 answers p99 is the slowest.",
        "`default` (which has `BetterTransformer: true` on a CPU), `split` (`false`: batches split by length) and "
        "`torchscript` are built by `mar build`; `padding` is a "
        "plain handler that pads every text to max_length; `empty` answers at once; `alone` is the model in a loop "
        "without a server, its latency that of a batch. All have the same weights.",
        f"max_length is {plan.brief} ({MAX_LENGTH} is the reference example's own default), for long texts "
        f"{plan.lengthy}; maxBatchDelay {MAX_BATCH_DELAY} ms, which a batch that does not fill waits.",
        *(f"Texts `{kind.name}`: {kind.about}; {kind.mean:.0f} tokens on average." for kind in texts),
        f"Generation: {plan.new_tokens} new tokens, greedy, by a GPT-2 with random weights that never ends by itself.",
        "Memory is that of a worker process after some requests, its archive alone on the server: `private` is shared "
        "with no other process, `peak` is the most that was resident since its start. READY is counted from the "
        "worker process's start, and from the server's.",
    ]
    return "".join(f"- {line}\n" for line in lines)


def _columns(columns: Mapping[str, Callable[[Item], str]], items: Iterable[Item]) -> str:
    return rows(list(columns), ([column(item) for column in columns.values()] for item in items))


_CELLS: dict[str, Callable[[Cell], str]] = {
    "contender": lambda cell: cell.contender,
    "texts": lambda cell: cell.workload,
    "batchSize": lambda cell: str(cell.batch_size),
    "workers": lambda cell: "-" if cell.section == "alone" else str(cell.workers),
    "threads": lambda cell: str(cell.threads or "own"),
    "at once": lambda cell: "-" if cell.section == "alone" else str(cell.concurrency),
    "a second": lambda cell: f"{cell.rate:.1f} {cell.unit}",
    "spread": lambda cell: f"{cell.spread:.0%}" if cell.others <= LIMIT else f"**{cell.spread:.0%}**",
    "p50 ms": lambda cell: f"{cell.latency(0.5):.1f}",
    "p99 ms": lambda cell: f"{cell.latency(0.99):.1f}",
    "answers": lambda cell: str(cell.answers),
}

_STARTS: dict[str, Callable[[Start], str]] = {
    "contender": lambda start: start.contender,
    "workers": lambda start: str(start.workers),
    "READY after": lambda start: f"{start.seconds:.2f} s",
    "from the server's start": lambda start: f"{start.server_seconds:.2f} s",
    "private": lambda start: f"{start.memory('private'):.0f} MB",
    "PSS": lambda start: f"{start.memory('pss'):.0f} MB",
    "RSS": lambda start: f"{start.memory('rss'):.0f} MB",
    "peak": lambda start: f"{start.memory('peak'):.0f} MB",
    "second's private": lambda start: f"{start.memory('private', last=True):.0f} MB" if start.workers > 1 else "-",
}
