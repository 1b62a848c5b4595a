"""What is measured, how long, and how often."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .archives import Variant

LEAST = 16
"""Answers of a round at least: of the slowest cells a whole round has no more."""

Report = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """`seconds` of a cell in each of the `rounds`; in every round it is every contender's turn, so that a machine
    that slows down slows all of them. `brief` and `lengthy` are max_length for short and mixed texts, and for long.
    A round that other processes disturb is measured again, `patience` times at most."""

    seconds: float
    rounds: int
    contenders: tuple[str, ...]
    brief: int
    lengthy: int
    cores: int
    new_tokens: int
    patience: int
    quick: bool


@dataclass(frozen=True, kw_only=True)
class Group:
    """Cells that share a server: its archives have these settings."""

    workloads: tuple[str, ...]
    concurrencies: tuple[int, ...]
    batch_size: int
    workers: int
    max_length: int


def groups(plan: Plan) -> list[Group]:
    """One worker in all ways, two where batches are full anyway. With batchSize 1, eight requests at once wait as
    sixteen do, only half as long."""
    texts = ("short", "mixed")
    if plan.quick:
        return [Group(workloads=texts, concurrencies=(1, 16), batch_size=8, workers=1, max_length=plan.brief)]
    return [
        Group(workloads=texts, concurrencies=(1, 8, 16), batch_size=8, workers=1, max_length=plan.brief),
        Group(workloads=texts, concurrencies=(1, 16), batch_size=1, workers=1, max_length=plan.brief),
        Group(workloads=texts, concurrencies=(16,), batch_size=8, workers=2, max_length=plan.brief),
        Group(workloads=("long",), concurrencies=(1, 8, 16), batch_size=8, workers=1, max_length=plan.lengthy),
        Group(workloads=("long",), concurrencies=(1, 16), batch_size=1, workers=1, max_length=plan.lengthy),
    ]


def variants(group: Group, plan: Plan) -> list[Variant]:
    """The archives of a group's server, the empty one first."""
    return [
        Variant(contender=name, batch_size=group.batch_size, workers=group.workers, max_length=group.max_length)
        for name in ("empty", *plan.contenders)
    ]
