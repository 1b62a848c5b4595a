"""Linear layers by oneDNN, on CPUs where it multiplies faster than what torch takes by itself.

On some processors MKL, which torch takes, leaves half of the vector unit idle; on all, weights that lie as oneDNN's
kernels read them save the work of laying them out anew for each small batch. What helps is measured at loading, on the
machine that serves. The results differ from torch's by the order of summation alone (some 1e-7).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

ROWS = (16, 256)
"""Tokens of the products that are timed: a short text alone, and a batch of them."""

GAIN = 1.1
"""How much faster a way has to be than torch's own to be taken: less is noise."""


class OneDNNLinear(nn.Linear):
    """A linear layer whose products are oneDNN's. Gradients, which explanations take, are still torch's: `weight` stays
    as it was, mapped from its file and untouched by serving."""

    packed: torch.Tensor
    """The weight as oneDNN reads it; `weight` itself where that is to stay shared."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if torch.is_grad_enabled():
            return super().forward(input)
        return _multiply(input, self.packed, self.bias)


def speed_up(model: nn.Module, *, shared: bool) -> str:
    """Give the model's linear layers the fastest way there is on this machine, and say which: "torch", "oneDNN", or
    "packed". The latter takes memory of its own, as much as the layers' weights, so it is left out if these are to be
    `shared` with other processes."""
    layers: list[Any] = [module for module in model.modules() if _fits(module)]
    if not layers or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return "torch"
    way = _fastest(layers, shared)
    if way != "torch":
        for layer in layers:
            layer.packed = _pack(layer.weight) if way == "packed" else layer.weight.detach()
            layer.__class__ = OneDNNLinear
    return way


def _fits(module: nn.Module) -> bool:
    return type(module) is nn.Linear and module.weight.device.type == "cpu" and module.weight.dtype == torch.float32


def _pack(weight: torch.Tensor) -> torch.Tensor:
    return torch.ops.mkldnn._reorder_linear_weight(weight.detach(), ROWS[-1])  # type: ignore[no-any-return]


def _multiply(input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    return torch.ops.mkldnn._linear_pointwise(input, weight, bias, "none", [], "")  # type: ignore[no-any-return]


@torch.inference_mode()
def _fastest(layers: list[Any], shared: bool) -> str:
    """The way with the least time over the model's most frequent shapes of layers."""
    shapes = Counter(tuple(layer.weight.shape) for layer in layers)
    chosen = [next(la for la in layers if tuple(la.weight.shape) == shape) for shape, _ in shapes.most_common(2)]
    times: Counter[str] = Counter()
    for layer in chosen:
        weight, bias = layer.weight.detach(), layer.bias
        ways: dict[str, Callable[[torch.Tensor], Any]] = {
            "torch": partial(F.linear, weight=weight, bias=bias),
            "oneDNN": partial(_multiply, weight=weight, bias=bias),
        }
        if not shared:
            ways["packed"] = partial(_multiply, weight=_pack(weight), bias=bias)
        for rows in ROWS:
            taken = _times(ways, torch.rand(rows, layer.in_features) - 0.5)
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
