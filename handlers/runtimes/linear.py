"""Linear layers by oneDNN, on CPUs where it multiplies faster than what torch takes by itself.

On some processors MKL, which torch takes, leaves half of the vector unit idle; on all, weights that lie as oneDNN's
kernels read them save the work of laying them out anew for each small batch. What helps is measured at loading, on the
machine that serves. The results differ from torch's by the order of summation alone (some 1e-7).

oneDNN writes a kernel for each number of rows that it meets, which takes longer than a product, and keeps the last
thousand, half a megabyte each. So rows are rounded up to one of eight numbers an octave, and no more than CAPACITY
kernels are kept: a worker's memory stays as it is after some hundred texts, whatever lengths they have.
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
"""Kernels that oneDNN keeps in a worker."""

# oneDNN reads it at its first product in a process, so it is set when this module is imported. Both names are its own.
if "DNNL_PRIMITIVE_CACHE_CAPACITY" not in os.environ:
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(CAPACITY))

GAIN = 1.1
"""How much faster a way has to be than torch's own to be taken: less is noise."""

TEXTS = (16, 256)
STEPS = (1, 8)
"""Rows (tokens) that a layer gets at once: a short text's and a batch's; or the next token of each text of a batch."""


@dataclass(frozen=True)
class Layer:
    """A linear layer: its weight [out, in], its bias [out] or None, and how it multiplies by itself."""

    weight: torch.Tensor
    bias: torch.Tensor | None
    plain: Callable[[torch.Tensor], torch.Tensor]


def speed_up(model: nn.Module, rows: Sequence[int], *, shared: bool) -> str:
    """Give the model's linear layers the fastest way there is on this machine for inputs of about so many `rows`, and
    say which it is, as `fastest` has it.

    Gradients, which explanations take, are still torch's: a layer's `weight` stays as it was, mapped from its file.
    """
    layers = {module: _layer(module) for module in model.modules() if _fits(module)}
    way = fastest(list(layers.values()), rows, shared=shared)
    if way != "torch":
        for module, layer in layers.items():
            module.forward = partial(_forward, layer.plain, prepared(layer.weight, way, rows), layer.bias)
    return way


def _fits(module: Any) -> bool:
    """Conv1D is transformers' linear layer of GPT-2, its weight [in, out]. A subclass may do more than multiply."""
    known = type(module) is nn.Linear or type(module).__name__ == "Conv1D"
    return known and eligible(getattr(module, "weight", None))


def eligible(weight: Any) -> bool:
    """Whether a weight is one that oneDNN may multiply with."""
    if not isinstance(weight, torch.Tensor) or not weight.numel():
        return False
    return (weight.device.type, weight.dtype) == ("cpu", torch.float32)


def _layer(module: Any) -> Layer:
    weight = module.weight.detach()
    return Layer(weight if isinstance(module, nn.Linear) else weight.t(), module.bias, module.forward)


def _forward(plain: Any, weight: torch.Tensor, bias: torch.Tensor | None, input: torch.Tensor) -> Any:
    return plain(input) if torch.is_grad_enabled() else multiply(weight, bias, input)


def multiply(weight: torch.Tensor, bias: torch.Tensor | None, input: torch.Tensor) -> torch.Tensor:
    """`input` [..., in] times a weight [out, in] as it is or as `prepared`, by oneDNN. Traces have it in their graphs,
    so it is in torch.jit's part of Python, as is `rounded`."""
    rows = input.numel() // input.size(-1)
    more = rounded(rows) - rows
    if more == 0:
        return torch.ops.mkldnn._linear_pointwise(input, weight, bias, "none", [], "")  # type: ignore[no-any-return]
    filled = torch.constant_pad_nd(input.reshape(rows, input.size(-1)), [0, 0, 0, more])
    product = torch.ops.mkldnn._linear_pointwise(filled, weight, bias, "none", [], "")
    return product.narrow(0, 0, rows).unflatten(0, input.size()[:-1])  # type: ignore[no-any-return]


def rounded(rows: int) -> int:
    """So many rows, or a few more: one of eight numbers an octave."""
    step = 1
    while rows >= 16 * step:
        step *= 2
    return rows + -rows % step


def prepared(weight: torch.Tensor, way: str, rows: Sequence[int]) -> torch.Tensor:
    """A weight [out, in] as `multiply` is to have it."""
    if way != "packed":
        return weight
    return torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), max(rows))  # type: ignore[no-any-return]


@torch.inference_mode()
def fastest(layers: Sequence[Layer], rows: Sequence[int], *, shared: bool) -> str:
    """The way that takes least time over the most frequent shapes of layers: "torch", "oneDNN", or "packed". The latter
    takes memory of its own, as much as the weights, so it is left out if these are to be `shared` by processes."""
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
            # In parts of torch's own time, or the longest product alone would decide.
            times.update({way: taken[way] / taken["torch"] for way in ways})
    best = min(times, key=lambda way: times[way])
    return best if times["torch"] > GAIN * times[best] else "torch"


def _times(ways: dict[str, Any], x: torch.Tensor) -> dict[str, float]:
    """Processor seconds of each way in one thread: the shortest of several rounds. Other workers load and serve at the
    same time, so wall-clock time and several threads would measure them too. The clock of some virtual machines does
    not advance over a short call. Such a round is left out, and a way without any round has infinity."""
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
