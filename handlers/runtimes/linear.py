"""Linear layers by oneDNN, on CPUs where it is faster than torch's default.

On some processors MKL, torch's default, leaves half of the vector unit idle. On all of them, weights that are packed in
oneDNN's layout need not be repacked for each small batch. The worker measures both when it loads. The results differ
from torch's only by the order of summation (about 1e-7).

oneDNN compiles a kernel for each number of rows, which takes longer than a product, and keeps the last thousand, of
half a megabyte each. So the number of rows is rounded up, to one of eight sizes per power of two, and at most CAPACITY
kernels are kept. A worker's memory is then constant after some hundred texts, whatever their lengths.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

CAPACITY = 64
"""The number of kernels that oneDNN keeps in a worker."""

# oneDNN reads the variable, under either name, at a process's first product, so it is set on import.
if "DNNL_PRIMITIVE_CACHE_CAPACITY" not in os.environ:
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(CAPACITY))

GAIN = 1.1
"""oneDNN is used if it is faster than torch by this factor. A smaller gain may be noise."""

TEXTS = (16, 256)
STEPS = (1, 8)
"""Rows (tokens) that a layer is measured with. TEXTS: a short text, and a batch. STEPS: a step of generation for one
text, and for a batch."""


@dataclass(frozen=True)
class Layer:
    """A linear layer: its weight [out, in], its bias [out] or None, and torch's own product, `plain`."""

    weight: torch.Tensor
    bias: torch.Tensor | None
    plain: Callable[[torch.Tensor], torch.Tensor]


def speed_up(model: nn.Module, rows: Sequence[int], *, shared: bool) -> str:
    """Make the model's linear layers use the fastest way for inputs of about `rows` rows. Returns the way, as `fastest`
    names it.

    Gradients, which explanations need, are still computed by torch: each layer keeps its `weight`, mapped from the
    file.
    """
    layers = {module: _layer(module) for module in model.modules() if _fits(module)}
    way = fastest(list(layers.values()), rows, shared=shared)
    if way != "torch":
        for module, layer in layers.items():
            module.forward = partial(_forward, layer.plain, prepared(layer.weight, way, rows), layer.bias)
    return way


def _fits(module: Any) -> bool:
    """Whether a module is a linear layer. Conv1D is GPT-2's, with the weight [in, out]. A subclass may do more."""
    known = type(module) is nn.Linear or type(module).__name__ == "Conv1D"
    return known and eligible(getattr(module, "weight", None))


def eligible(weight: Any) -> bool:
    """Whether oneDNN can multiply with this weight: a float32 tensor on the CPU that is not empty."""
    if not isinstance(weight, torch.Tensor) or not weight.numel():
        return False
    return (weight.device.type, weight.dtype) == ("cpu", torch.float32)


def _layer(module: Any) -> Layer:
    weight = module.weight.detach()
    return Layer(weight if isinstance(module, nn.Linear) else weight.t(), module.bias, module.forward)


def _forward(plain: Any, weight: torch.Tensor, bias: torch.Tensor | None, input: torch.Tensor) -> Any:
    return plain(input) if torch.is_grad_enabled() else multiply(weight, bias, input)


def multiply(weight: torch.Tensor, bias: torch.Tensor | None, input: torch.Tensor) -> torch.Tensor:
    """The product [..., out] of `input` [..., in] and a weight [out, in], plain or `prepared`, by oneDNN. torch.jit
    compiles this function and `rounded`, so both use only what TorchScript supports."""
    rows = input.numel() // input.size(-1)
    more = rounded(rows) - rows
    if more == 0:
        return torch.ops.mkldnn._linear_pointwise(input, weight, bias, "none", [], "")  # type: ignore[no-any-return]
    filled = torch.constant_pad_nd(input.reshape(rows, input.size(-1)), [0, 0, 0, more])
    product = torch.ops.mkldnn._linear_pointwise(filled, weight, bias, "none", [], "")
    return product.narrow(0, 0, rows).unflatten(0, input.size()[:-1])  # type: ignore[no-any-return]


def rounded(rows: int) -> int:
    """The number of rows, rounded up to one of eight sizes per power of two."""
    step = 1
    while rows >= 16 * step:
        step *= 2
    return rows + -rows % step


def prepared(weight: torch.Tensor, way: str, rows: Sequence[int]) -> torch.Tensor:
    """A weight [out, in] for `multiply`, in oneDNN's layout for these numbers of rows if `way` is "packed"."""
    if way != "packed":
        return weight
    return torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), max(rows))  # type: ignore[no-any-return]


@torch.inference_mode()
def fastest(layers: Sequence[Layer], rows: Sequence[int], *, shared: bool) -> str:
    """The fastest way for the two most frequent shapes of layers: "torch", "oneDNN", or "packed". "packed" needs as
    much memory again as the weights, so it is not tried if processes are to share the weights (`shared`)."""
    needed = ("_linear_pointwise", "_reorder_linear_weight")
    if not layers or not all(hasattr(torch.ops.mkldnn, name) for name in needed):
        return "torch"
    shapes = Counter(layer.weight.shape for layer in layers)
    times: Counter[str] = Counter()
    for shape, _ in shapes.most_common(2):
        layer = next(layer for layer in layers if layer.weight.shape == shape)
        ways = {"torch": layer.plain}
        for way in ("oneDNN",) if shared else ("oneDNN", "packed"):
            ways[way] = partial(multiply, prepared(layer.weight, way, rows), layer.bias)
        for count in rows:
            taken = _times(ways, torch.rand(count, shape[1]) - 0.5)
            if float("inf") in taken.values():
                return "torch"
            # Relative to torch's time: otherwise the longest product alone would decide.
            times.update({way: taken[way] / taken["torch"] for way in ways})
    best = min(times, key=lambda way: times[way])
    return best if times["torch"] > GAIN * times[best] else "torch"


def _times(ways: dict[str, Any], x: torch.Tensor) -> dict[str, float]:
    """CPU seconds of each way in one thread, the minimum of several rounds. Wall-clock time, or more threads, would
    also measure other workers, which load and serve at the same time. On some virtual machines the clock does not
    advance during a short call. Such a round is ignored, and a way without any other round gets infinity."""
    best = dict.fromkeys(ways, float("inf"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for round_ in range(9):
            for name, way in ways.items():
                began = time.thread_time()
                way(x)
                taken = time.thread_time() - began
                if round_ and taken > 0:  # the first warms up
                    best[name] = min(best[name], taken)
    finally:
        torch.set_num_threads(threads)
    return best
