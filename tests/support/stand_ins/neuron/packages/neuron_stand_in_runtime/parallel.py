"""DataParallel, pretended: a batch in pieces, each run by a thread as if on a core of its own."""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from . import machine
from .calls import record
from .graph import graph_of


class DataParallel(torch.nn.Module):
    """`device_ids`: numbers, or "nc:#", of this process's own cores, from 0; all of them if not given."""

    def __init__(self, model: Any, device_ids: Any, dim: int, dynamic: bool) -> None:
        super().__init__()
        self._graph, self._dim = graph_of(model), dim
        words = {"device_ids": device_ids, "dim": dim, "set_dynamic_batching": dynamic}
        record(f"{self._graph.facts['package']}.DataParallel", words, self._graph.facts["shapes"])
        try:
            cores = machine.take(self._graph.facts["generation"])
        except RuntimeError:
            raise RuntimeError(
                "Neuron runtime cannot be initialized; cannot determine the number of available NeuronCores"
            ) from None
        self.device_ids = list(range(cores)) if device_ids is None else [_number(one) for one in device_ids]
        if not self.device_ids or not all(0 <= one < cores for one in self.device_ids):
            raise ValueError(f"Invalid device_ids {device_ids}: this process has NeuronCores 0 to {cores - 1}")
        self.num_workers = 2 * len(self.device_ids)
        self.split_size: int | None = None
        eligible = dim == 0 and len({shape[0] for shape in self._graph.facts["shapes"]}) == 1
        if dynamic and dim == 0 and not eligible:
            warnings.warn("Dynamic batching cannot be enabled for this model", stacklevel=3)
        self._dynamic = dynamic and eligible
        self._graph.send()

    def disable_dynamic_batching(self) -> None:
        """Have each core's part be the batch that was compiled."""
        self._dynamic = False

    def forward(self, *inputs: Any) -> Any:
        size = self.split_size or max(1, inputs[0].shape[self._dim] // len(self.device_ids))
        parts = list(zip(*(torch.split(one, size, self._dim) for one in inputs)))  # noqa: B905
        with ThreadPoolExecutor(self.num_workers) as threads:
            results = list(threads.map(lambda part: self._graph.run(list(part), self._dynamic), parts))
        joined = tuple(torch.cat(pieces, self._dim) for pieces in zip(*results))  # noqa: B905
        return joined if self._graph.facts["tuple"] else joined[0]


def _number(core: Any) -> int:
    return int(core[3:]) if isinstance(core, str) and core.startswith("nc:") else int(core)
