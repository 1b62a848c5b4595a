"""Runs the graphs that AWS's compilers made for NeuronCores: one for each length, all with one number of rows."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import pad as padded

from ..inference.batches import filled
from . import Task
from . import facts as graph_json
from .neuron_package import Package
from .weights import damaged, present

logger = logging.getLogger(__name__)

FORMAT = 1
"""The version of graph.json and of how its graphs are run."""

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
    """Load an archive's graphs onto NeuronCores and run each once, so that no request waits for its first run.

    Raises errors with a message of one sentence: ValueError if a file is missing or damaged, ImportError or
    RuntimeError if the graphs were not compiled for this environment or machine.
    """
    del device  # inputs and outputs are on the CPU
    facts = _facts(model_dir / "graph.json", config["handler"]["hardware"])
    files = {length: present(model_dir / f"model-{length}.pt") for length in facts["lengths"]}
    package = Package(facts)
    module = package.imported()
    runtime = Neuron(facts, pad, task)
    for length, file in files.items():
        try:
            graph = torch.jit.load(str(file))  # type: ignore[no-untyped-call]
            if facts["cores"] > 1:
                graph = module.DataParallel(graph, device_ids=list(range(facts["cores"])), dim=0)
            runtime.add(length, graph)
        except Exception as error:
            raise package.failed(file, error) from error
    logger.info("%d rows of %s tokens", runtime.rows, ", ".join(map(str, facts["lengths"])))
    return runtime


def _facts(file: Path, hardware: str) -> dict[str, Any]:
    """The contents of graph.json, its lengths sorted. Raises ValueError if it is missing, damaged or for another
    chip."""
    facts = graph_json.read(file, _FACTS)
    if facts["format"] != FORMAT:
        raise damaged(file, f"its format is {facts['format']}, and this archive's handler knows {FORMAT}")
    if facts["device"] != hardware:
        raise damaged(file, f"its graphs are for {facts['device']}, and the archive is for {hardware}")
    numbers = [*facts["lengths"], facts["batch"], facts["cores"]]
    if not facts["lengths"] or any(type(number) is not int or number < 1 for number in numbers):
        raise damaged(file, "its lengths, batch and cores are not whole numbers above 0")
    return {**facts, "lengths": sorted(facts["lengths"])}


class Neuron:
    """Loaded graphs by length. `facts` is graph.json; `rows` is the number of rows of one run."""

    alone = False
    notes: Sequence[str] = ()
    unexplained = (
        "an archive that is compiled for Inferentia has no explanations, which need gradients: "
        "build it with handler.save_mode: pretrained and handler.hardware: cpu"
    )

    def __init__(self, facts: dict[str, Any], pad: int, task: Task) -> None:
        self.graphs: dict[int, Any] = {}
        self.lengths: list[int] = facts["lengths"]
        self.inputs, self.outputs = facts["inputs"], facts["outputs"]
        self.vocabulary: int | None = facts.get("vocabulary")
        self.rows = facts["batch"] * facts["cores"]
        self.fixed = not facts["dynamic_batch"]
        self.each = task.per_token
        """Whether the outputs have a value for each token."""
        self.pad = pad

    @torch.no_grad()
    def add(self, length: int, graph: Any) -> None:
        """Add the graph of a length, and run it with a full batch: only then it is loaded onto all of its cores."""
        full = torch.full((self.rows, length), self.pad, dtype=torch.long)
        batch = {"input_ids": full, "attention_mask": torch.ones_like(full), "token_type_ids": torch.zeros_like(full)}
        graph(*(batch[name] for name in self.inputs))
        self.graphs[length] = graph

    def batches(self, lengths: Sequence[int], most: float = 0) -> list[list[int]]:
        """Batches of inputs of these lengths, as lists of indices, filled up to the graphs' rows: a run takes the same
        time however many rows are used."""
        del most
        return filled(lengths, self.lengths, self.rows)

    # Not inference_mode: DataParallel's threads are outside of it.
    @torch.no_grad()
    def run(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Outputs by name, float32 on the CPU, for int64 inputs [rows, length]: any number of rows, and lengths up to
        the longest graph's. Raises ValueError for a longer one."""
        rows, longest = batch["input_ids"].shape
        length = next((length for length in self.lengths if length >= longest), None)
        if length is None:
            raise ValueError(f"{longest} tokens, and the longest graph takes {self.lengths[-1]}")
        inputs = [
            padded(batch[name], (0, length - longest), value=self.pad if name == "input_ids" else 0)
            for name in self.inputs
        ]
        # With dynamic_batch, the graph itself splits and fills batches.
        step = self.rows if self.fixed else rows
        pieces = [self._piece(length, [each[at : at + step] for each in inputs]) for at in range(0, rows, step)]
        values = [torch.cat(parts) for parts in zip(*pieces)]
        return {
            name: (value[:, :longest] if self.each else value).float().cpu()
            for name, value in zip(self.outputs, values)
        }

    def _piece(self, length: int, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
        """A graph's outputs for some rows, at most `self.rows`. Copies of the first row fill them up: a row of padding
        alone gives NaN in some models' attention."""
        count = len(inputs[0])
        more = self.rows - count if self.fixed else 0
        if more:
            inputs = [torch.cat([each, each[:1].expand(more, -1)]) for each in inputs]
        outputs = self.graphs[length](*inputs)
        return [value[:count].detach() for value in ([outputs] if isinstance(outputs, torch.Tensor) else outputs)]
