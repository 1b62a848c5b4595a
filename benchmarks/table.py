"""The tables, as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .archives import MAX_BATCH_DELAY, MAX_LENGTH
from .cells import Cell
from .machine import Facts, line
from .plan import LEAST, Plan
from .starts import Start
from .targets import Target
from .workloads import Workload

_QUIET = 0.5  # processes; the load average of a machine with nothing else to do


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
    parts = ["# Serving", line(facts) + ".\n" + _busy(facts)]
    parts += ["## Reached?", _targets(targets), "## How", _how(plan, texts)]
    for title, kinds in (
        ("Classifiers", ("alone", "served")),
        ("Generation", ("generation",)),
        ("Threads", ("threads",)),
    ):
        if chosen := [cell for cell in cells if cell.section in kinds]:
            parts += [f"## {title}", _cells(chosen)]
    if starts:
        parts += ["## Workers", _starts(starts)]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _busy(facts: Facts) -> str:
    """A warning, if other processes were at work."""
    average = float(facts["load_before"])
    if average <= _QUIET:
        return ""
    return f"\n**Other processes were at work** (load average {average:.1f} before the run): trust none of this.\n"


def _targets(targets: Sequence[Target]) -> str:
    def one(target: Target) -> Sequence[str]:
        goal = f"{'at least' if target.least else 'at most'} {target.goal:g} {target.unit}"
        measured = "not measured" if target.measured is None else f"{target.measured:.2f} {target.unit}"
        return target.name, goal, measured, {True: "yes", False: "**no**", None: "-"}[target.reached]

    return rows(("what", "target", "measured", "reached"), map(one, targets))


def _how(plan: Plan, texts: Sequence[Workload]) -> str:
    lines = [
        f"{plan.rounds} rounds of {plan.seconds:g} s a cell and {LEAST} answers at least, contenders in turn. A rate "
        "is the median of the rounds; p50 and p99 are of all rounds' answers, so below 100 answers p99 is the slowest.",
        "`default`, `better` (`BetterTransformer: true`) and `torchscript` are built by `mar build`; `padding` is a "
        "plain handler that pads every text to max_length; `empty` answers at once; `alone` is the model in a loop "
        "without a server, its latency that of a batch. All have the same weights.",
        f"max_length is {plan.brief} ({MAX_LENGTH} is the reference example's own default), for long texts "
        f"{plan.lengthy}; maxBatchDelay {MAX_BATCH_DELAY} ms, which a batch that does not fill waits.",
        *(f"Texts `{kind.name}`: {kind.about}; {kind.mean:.0f} tokens on average." for kind in texts),
        f"Generation: {plan.new_tokens} new tokens, greedy, by a GPT-2 with random weights that never ends by itself.",
        "Memory is that of a worker process after some requests, its archive alone on the server: `private` is shared "
        "with no other process. READY is counted from the worker process's start, and from the server's.",
    ]
    return "".join(f"- {line}\n" for line in lines)


def _cells(cells: Sequence[Cell]) -> str:
    head = (
        "contender",
        "texts",
        "batchSize",
        "workers",
        "threads",
        "at once",
        "a second",
        "p50 ms",
        "p99 ms",
        "answers",
    )
    return rows(
        head,
        (
            (
                cell.contender,
                cell.workload,
                str(cell.batch_size),
                str(cell.workers),
                str(cell.threads or "own"),
                "-" if cell.section == "alone" else str(cell.concurrency),
                f"{cell.rate:.1f} {cell.unit}",
                f"{cell.latency(0.5):.1f}",
                f"{cell.latency(0.99):.1f}",
                str(cell.answers),
            )
            for cell in cells
        ),
    )


def _starts(starts: Sequence[Start]) -> str:
    head = (
        "contender",
        "workers",
        "READY after",
        "from the server's start",
        "private",
        "PSS",
        "RSS",
        "second's private",
    )
    return rows(
        head,
        (
            (
                start.contender,
                str(start.workers),
                f"{start.seconds:.2f} s",
                f"{start.server_seconds:.2f} s",
                *(f"{start.memory(kind):.0f} MB" for kind in ("private", "pss", "rss")),
                f"{start.memory('private', last=True):.0f} MB" if start.workers > 1 else "-",
            )
            for start in starts
        ),
    )
