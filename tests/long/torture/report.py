"""What an ordeal found."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

Item = TypeVar("Item")


@dataclass
class Report:
    """How often what was done, and each thing that was not as it has to be. `skipped` says why nothing was done."""

    name: str
    counts: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    seconds: float = 0.0
    skipped: str = ""
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def count(self, what: str, number: int = 1) -> None:
        with self._lock:
            self.counts[what] += number

    def expect(self, true: object, fault: str) -> bool:
        """Note a fault unless it is true."""
        if not true:
            with self._lock:
                self.faults.append(fault)
        return bool(true)


def side_by_side(work: Callable[[int, Item], None], items: Sequence[Item], lanes: int) -> None:
    """Do every item, in so many lanes at once; `work` is told the number of its lane."""

    def lane(number: int) -> None:
        for item in items[number::lanes]:
            work(number, item)

    with ThreadPoolExecutor(lanes) as pool:
        for done in [pool.submit(lane, number) for number in range(lanes)]:
            done.result()
