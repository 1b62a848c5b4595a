"""Runs a traced graph with torch alone: transformers need not be installed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from ..inference.batches import RUN_TOKENS, split
from ..inference.generation import Row, never
from . import Task, linear, shares_weights, traced_linear
from . import facts as graph_json
from .weights import damaged, mapped, present

logger = logging.getLogger(__name__)


def load(model_dir: Path, config: dict[str, Any], device: torch.device, pad: int, task: Task) -> Traced:
    """Load the graph of an unpacked archive. Raises ValueError if it was traced for another kind of device, or if a
    file is missing or damaged."""
    del pad, task  # they are part of the trace
    facts = graph_json.read(model_dir / "graph.json", _FACTS)
    if facts["device"] != device.type:
        here, other = (
            ("set deviceType: cpu", "gpu") if facts["device"] == "cpu" else ("serve it where torch finds a GPU", "cpu")
        )
        raise ValueError(
            f"this graph was traced for {facts['device']} and cannot run on {device.type}: {here}, or build it again "
            f"with handler.hardware: {other}"
        )
    # Without profiling, torch optimizes a graph once, and not again for the shapes of the first requests.
    torch._C._jit_set_profiling_mode(False)
    graph_file = str(present(model_dir / "model.pt"))
    module = torch.jit.load(graph_file, map_location=device).eval()  # type: ignore[no-untyped-call]
    _fill(module, facts["weights"], model_dir, device)
    rows = linear.STEPS if facts["cache"] else linear.TEXTS
    way, graph = traced_linear.speed_up(module, rows, shared=shares_weights(config))
    logger.info("linear layers by %s", way)
    return Traced(graph, facts, device)


_FACTS: dict[str, Any] = {
    "device": str,
    "inputs": list,
    "outputs": list,
    "weights": dict,
    "cache": (dict, type(None)),
    "alone": bool,
    "vocabulary": (int, type(None)),
}
"""The fields of graph.json that this runtime reads, and their types."""


def _fill(module: Any, names: dict[str, Any], model_dir: Path, device: torch.device) -> None:
    """Put the tensors of model.safetensors into a graph that was saved without weights. `names` gives the tensor for
    each parameter of the graph. Raises ValueError if a parameter or a tensor is left over, or if shape or dtype
    differ."""
    facts, file = model_dir / "graph.json", model_dir / "model.safetensors"
    empty = {
        name: tensor
        for name, tensor in module.state_dict(keep_vars=True).items()
        if tensor.is_floating_point() and tensor.numel()
    }
    if odd := sorted(names.keys() ^ empty.keys()):
        raise damaged(facts, f"{odd[0]} is {'no weight of the graph' if odd[0] in names else 'not in its weights'}")
    weights = mapped(file)
    if odd := sorted(weights.keys() - {name for name in names.values() if isinstance(name, str)}):
        raise damaged(facts, f"its weights do not say where {odd[0]} of {file.name} belongs")
    for place, tensor in empty.items():
        name = names[place]
        if not isinstance(name, str) or name not in weights:
            raise damaged(file, f"it has no {name}")
        weight = weights[name]
        if (weight.shape, weight.dtype) != (tensor.shape, tensor.dtype):
            raise damaged(
                file,
                f"{name} is {list(weight.shape)} of {weight.dtype}, and the graph's {place} {list(tensor.shape)} "
                f"of {tensor.dtype}",
            )
        tensor.data = weight.to(device)


class Traced:
    """A loaded graph. `facts` is graph.json."""

    notes: Sequence[str] = ()
    unexplained = (
        "a TorchScript archive has no explanations, which need gradients: build it with handler.save_mode: pretrained"
    )

    def __init__(self, graph: Any, facts: dict[str, Any], device: torch.device) -> None:
        self.graph, self.facts, self.device = graph, facts, device
        self.alone: bool = facts["alone"]
        self.vocabulary: int | None = facts["vocabulary"]

    def batches(self, lengths: Sequence[int], most: float = RUN_TOKENS) -> list[list[int]]:
        """Batches of inputs of these lengths, as lists of indices, of at most `most` tokens each."""
        if self.alone:
            return [[index] for index in range(len(lengths))]
        return split(lengths, most=most)

    @torch.inference_mode()
    def run(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Outputs by name, float32 on the CPU, for int64 inputs [rows, length]."""
        outputs = self.graph(*(batch[name].to(self.device) for name in self.facts["inputs"]))
        return {name: value.float().cpu() for name, value in zip(self.facts["outputs"], outputs)}

    @torch.inference_mode()
    def generate(
        self, rows: Sequence[Row], batch: dict[str, torch.Tensor], pad: int, over: Callable[[], bool] = never
    ) -> None:
        """Generate after each prompt, padded on the left in `batch`, until every row has finished or `over()` is true.
        Finished rows leave the batch."""
        del pad  # finished rows are removed, so nothing needs padding
        ids, mask = batch["input_ids"].to(self.device), batch["attention_mask"].to(self.device)
        cache = self.facts["cache"]
        shape = (len(rows), cache["heads"], 0, cache["head_dim"])
        dtype = getattr(torch, cache["dtype"])
        past = [torch.zeros(shape, dtype=dtype, device=self.device) for _ in range(2 * cache["layers"])]
        live = list(rows)
        while live and not over():
            logits, *past = self.graph(ids, mask, *past)
            tokens = []
            for index, row in enumerate(live):
                tokens.append(row.choose(logits[index, -1]))
                row.accept(tokens[-1])
            kept = [index for index, row in enumerate(live) if row.finish is None]
            if len(kept) < len(live):
                keep = torch.tensor(kept, dtype=torch.long, device=self.device)
                mask, past = mask[keep], [tensor[keep] for tensor in past]
                live = [live[index] for index in kept]
                tokens = [tokens[index] for index in kept]
            ids = torch.tensor(tokens, dtype=torch.long, device=self.device)[:, None]
            mask = torch.cat([mask, torch.ones_like(ids)], dim=1)
