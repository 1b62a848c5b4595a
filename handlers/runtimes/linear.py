"""Linear layers by oneDNN, on CPUs where it multiplies faster than what torch takes by itself.

On some processors MKL, which torch takes, leaves half of the vector unit idle; on all, weights that lie as oneDNN's
kernels read them save the work of laying them out anew for each small batch. What helps is measured at loading, on the
machine that serves. The results differ from torch's by the order of summation alone (some 1e-7).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

GAIN = 1.1
"""How much faster a way has to be than torch's own to be taken: less is noise."""


def speed_up(model: nn.Module, rows: Sequence[int], *, shared: bool) -> str:
    """Give the model's linear layers the fastest way there is on this machine for inputs of about so many `rows`
    (tokens), and say which: "torch", "oneDNN", or "packed". The latter takes memory of its own, as much as the layers'
    weights, so it is left out if these are to be `shared` with other processes.

    Gradients, which explanations take, are still torch's: a layer's `weight` stays as it was, mapped from its file.
    """
    layers: list[Any] = [module for module in model.modules() if _fits(module)]
    if not layers or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return "torch"
    way = _fastest(layers, rows, shared)
    if way != "torch":
        for layer in layers:
            weight = _weight(layer)
            layer.forward = partial(
                _forward, layer.forward, _pack(weight, rows) if way == "packed" else weight, layer.bias
            )
    return way


def _fits(module: nn.Module) -> bool:
    """Conv1D is transformers' linear layer of GPT-2, its weight [in, out]. A subclass may do more than multiply."""
    known = type(module) is nn.Linear or type(module).__name__ == "Conv1D"
    weight = getattr(module, "weight", None)
    return known and isinstance(weight, torch.Tensor) and (weight.device.type, weight.dtype) == ("cpu", torch.float32)


def _weight(layer: Any) -> torch.Tensor:
    """[out, in]"""
    weight: torch.Tensor = layer.weight.detach()
    return weight if isinstance(layer, nn.Linear) else weight.t()


def _pack(weight: torch.Tensor, rows: Sequence[int]) -> torch.Tensor:
    return torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), max(rows))  # type: ignore[no-any-return]


def _multiply(weight: torch.Tensor, bias: torch.Tensor | None, input: torch.Tensor) -> torch.Tensor:
    return torch.ops.mkldnn._linear_pointwise(input, weight, bias, "none", [], "")  # type: ignore[no-any-return]


def _forward(plain: Any, weight: torch.Tensor, bias: torch.Tensor | None, input: torch.Tensor) -> Any:
    return plain(input) if torch.is_grad_enabled() else _multiply(weight, bias, input)


@torch.inference_mode()
def _fastest(layers: list[Any], rows: Sequence[int], shared: bool) -> str:
    """The way with the least time over the model's most frequent shapes of layers."""
    shapes = Counter(layer.weight.shape for layer in layers)
    times: Counter[str] = Counter()
    for shape, _ in shapes.most_common(2):
        layer = next(layer for layer in layers if layer.weight.shape == shape)
        weight = _weight(layer)
        ways: dict[str, Callable[[torch.Tensor], Any]] = {
            "torch": layer.forward,
            "oneDNN": partial(_multiply, weight, layer.bias),
        }
        if not shared:
            ways["packed"] = partial(_multiply, _pack(weight, rows), layer.bias)
        for count in rows:
            taken = _times(ways, torch.rand(count, weight.shape[1]) - 0.5)
            # In parts of torch's own time, or the longest product alone would decide.
            times.update({way: taken[way] / taken["torch"] for way in ways})
    best = min(times, key=lambda way: times[way])
    return best if times["torch"] > GAIN * times[best] else "torch"


def _times(ways: dict[str, Callable[[torch.Tensor], Any]], x: torch.Tensor) -> dict[str, float]:
    """Seconds of each way, the least of several in turn, since whatever else runs can only make them longer."""
    best = dict.fromkeys(ways, float("inf"))
    for round_ in range(7):
        for name, way in ways.items():
            began = time.perf_counter()
            way(x)
            if round_:  # the first warms up
                best[name] = min(best[name], time.perf_counter() - began)
    return best
