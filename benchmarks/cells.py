"""A cell of the table: what was measured, round by round, and what it comes to."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass, field
from typing import Any

from .load import Sample, percentile


@dataclass(kw_only=True)
class Cell:
    """One contender under one load. Rates are medians of rounds; latencies are of all rounds' answers together."""

    section: str
    contender: str
    workload: str
    concurrency: int
    batch_size: int
    workers: int = 1
    threads: int | None = None
    beside: int | None = None  # batchSize of the server that it took turns with, for the model alone
    unit: str = "texts"
    rounds: list[Sample] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Units per second."""
        return statistics.median(sample.rate for sample in self.rounds)

    @property
    def spread(self) -> float:
        """How far the rates of the rounds lie apart, in parts of their median: what a ratio of two cells is worth."""
        rates = [sample.rate for sample in self.rounds]
        return (max(rates) - min(rates)) / self.rate

    @property
    def others(self) -> float:
        """The cores that other processes took, in the round that was disturbed most."""
        return max(sample.others for sample in self.rounds)

    @property
    def answers(self) -> int:
        """How many latencies there are: of answers, or of batches for the model alone."""
        return sum(len(sample.latencies) for sample in self.rounds)

    def latency(self, part: float) -> float:
        """A percentile of the latencies, in milliseconds."""
        return 1000 * percentile([latency for sample in self.rounds for latency in sample.latencies], part)

    def as_json(self) -> dict[str, Any]:
        """The cell with its figures and the figures of each round; latencies in milliseconds."""
        found = asdict(self)
        found["rounds"] = [
            {
                "seconds": sample.seconds,
                "answers": len(sample.latencies),
                "rate": sample.rate,
                "p50": 1000 * percentile(sample.latencies, 0.5),
                "p99": 1000 * percentile(sample.latencies, 0.99),
                "others": sample.others,
            }
            for sample in self.rounds
        ]
        return {**found, "rate": self.rate, "spread": self.spread, "p50": self.latency(0.5), "p99": self.latency(0.99)}


def find(cells: list[Cell], **wanted: Any) -> Cell | None:
    """The first cell that has those values."""
    matching = (cell for cell in cells if all(getattr(cell, name) == value for name, value in wanted.items()))
    return next(matching, None)
