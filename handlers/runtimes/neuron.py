"""Graphs that AWS's compilers made for NeuronCores: one a length, each for that length and one number of rows."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import pad as padded

from ..inference.batches import filled
from . import Task, facts
from .neuron_package import Package
from .weights import damaged, present

logger = logging.getLogger(__name__)

FORMAT = 1
"""Of graph.json and of what is to be done with the graphs that it names."""

_FACTS: dict[str, Any] = {
    "format": int,
    "task": str,
    "device": str,
    "inputs": list,
    "outputs": list,
    "batch": int,
    "lengths": list,
    "dynamic_batch": bool,
    "cores": int,
    "versions": dict,
}


def load(model_dir: Path, config: dict[str, Any], device: torch.device, pad: int, task: Task) -> Neuron:
    """The graphs of an unpacked archive, each on its NeuronCores and run once, so that no request waits for that.

    Raises an error of one sentence: ValueError if a file is missing or damaged, ImportError or RuntimeError if the
    environment, or the machine, is not the one that they were compiled for.
    """
    del device  # tensors come and go on the CPU
    told = _facts(model_dir / "graph.json", config["handler"]["hardware"])
    files = {length: present(model_dir / f"model-{length}.pt") for length in told["lengths"]}
    package = Package(told)
    module = package.imported()
    runtime = Neuron(told, pad, task)
    for length, file in files.items():
        try:
            graph = torch.jit.load(str(file))  # type: ignore[no-untyped-call]
            if told["cores"] > 1:
                graph = module.DataParallel(graph, device_ids=list(range(told["cores"])), dim=0)
            runtime.add(length, graph)
        except Exception as error:
            raise package.failed(file, error) from error
    logger.info("%d rows of %s tokens", runtime.rows, ", ".join(map(str, told["lengths"])))
    return runtime


def _facts(file: Path, hardware: str) -> dict[str, Any]:
    """What graph.json says. Raises ValueError if it is missing or damaged."""
    told = facts.read(file, _FACTS)
    if told["format"] != FORMAT:
        raise damaged(file, f"its format is {told['format']}, and this archive's handler knows {FORMAT}")
    if told["device"] != hardware:
        raise damaged(file, f"its graphs are for {told['device']}, and the archive is for {hardware}")
    numbers = [*told["lengths"], told["batch"], told["cores"]]
    if not told["lengths"] or any(type(number) is not int or number < 1 for number in numbers):
        raise damaged(file, "its lengths, batch and cores are not whole numbers above 0")
    return {**told, "lengths": sorted(told["lengths"])}


class Neuron:
    """Loaded graphs, by length, and what graph.json says of them. `rows`: how many go through at once."""

    notes: Sequence[str] = ()
    unexplained = (
        "an archive that is compiled for Inferentia has no explanations, which need gradients: "
        "build it with save_mode: pretrained and hardware: cpu"
    )

    def __init__(self, told: dict[str, Any], pad: int, task: Task) -> None:
        self.graphs: dict[int, Any] = {}
        self.lengths: list[int] = told["lengths"]
        self.inputs, self.outputs = told["inputs"], told["outputs"]
        self.rows = told["batch"] * told["cores"]
        self.fixed = not told["dynamic_batch"]
        self.each = task.per_token
        """Whether there is an answer for each token."""
        self.pad = pad

    @torch.no_grad()
    def add(self, length: int, graph: Any) -> None:
        """Take the graph of a length, and run it with a full batch: only then it is wholly on its cores."""
        full = torch.full((self.rows, length), self.pad, dtype=torch.long)
        batch = {"input_ids": full, "attention_mask": torch.ones_like(full), "token_type_ids": torch.zeros_like(full)}
        graph(*(batch[name] for name in self.inputs))
        self.graphs[length] = graph

    def batches(self, lengths: Sequence[int], most: float = 0) -> list[list[int]]:
        """Indices of inputs of these lengths, as they go through a graph together, which takes the same whatever is in
        it."""
        del most
        return filled(lengths, self.lengths, self.rows)

    # Not inference_mode: DataParallel's threads are outside of it.
    @torch.no_grad()
    def run(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Outputs by name, on the CPU in float32, for int64 inputs [batch, length] of any batch, and any length up to
        the longest graph's."""
        rows, longest = batch["input_ids"].shape
        length = next((length for length in self.lengths if length >= longest), None)
        if length is None:
            raise ValueError(f"{longest} tokens, and the longest graph takes {self.lengths[-1]}")
        inputs = [
            padded(batch[name], (0, length - longest), value=self.pad if name == "input_ids" else 0)
            for name in self.inputs
        ]
        # What was made for any number of rows cuts and fills them by itself.
        step = self.rows if self.fixed else rows
        pieces = [self._piece(length, [each[at : at + step] for each in inputs]) for at in range(0, rows, step)]
        found = [torch.cat(parts) for parts in zip(*pieces)]
        return {
            name: (value[:, :longest] if self.each else value).float().cpu() for name, value in zip(self.outputs, found)
        }

    def _piece(self, length: int, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
        """What a graph makes of some rows. Others fill them up to as many as it takes: the first one again, since a row
        of nothing but padding can be no number in some models' attention."""
        count = len(inputs[0])
        more = self.rows - count if self.fixed else 0
        if more:
            inputs = [torch.cat([each, each[:1].expand(more, -1)]) for each in inputs]
        found = self.graphs[length](*inputs)
        return [value[:count].detach() for value in ([found] if isinstance(found, torch.Tensor) else found)]
