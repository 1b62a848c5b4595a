"""Traces a decoder over a flat key-value cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..errors import StageError
from ..portable.tracing import traceable_masks
from . import probe

if TYPE_CHECKING:
    from ..portable.protocol import Report


def _new_cache(past: Sequence[Any]) -> Any:
    from transformers import DynamicCache

    cache = DynamicCache()
    for layer in range(len(past) // 2):
        cache.update(past[2 * layer], past[2 * layer + 1], layer)
    return cache


def _flat(cache: Any) -> list[Any]:
    """Key and value of each layer, in order."""
    return [tensor for layer in cache.layers for tensor in (layer.keys, layer.values)]


def trace_decoder(model: Any, job: dict[str, Any], report: Report) -> tuple[Any, dict[str, Any], bool]:
    """The traced and checked graph, its cache's {"layers", "heads", "head_dim", "dtype"}, and whether each text needs a
    run of its own. Raises StageError."""
    import torch

    from .loading import takes

    extra = {"logits_to_keep": 1} if takes(model, "logits_to_keep") else {}
    positions = takes(model, "position_ids")

    class Decoder(torch.nn.Module):
        """The model over a flat cache; positions do not count padding."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: Any, attention_mask: Any, *past: Any) -> Any:
            inputs = dict(extra)
            if positions:
                ids = (attention_mask.cumsum(-1) - 1).clamp(min=0)
                inputs["position_ids"] = ids[:, -input_ids.shape[1] :]
            out = self.model(
                input_ids=input_ids,
                attention_mask=attention_mask,
                past_key_values=_new_cache(past),
                use_cache=True,
                return_dict=True,
                **inputs,
            )
            return (out.logits[:, -1:], *_flat(out.past_key_values))

    # The cache's shape comes from the model's own first step.
    ids = probe.ids(model, 2, 3, 1)
    first = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=True, return_dict=True)
    cache = getattr(first, "past_key_values", None)
    # Before version 5, an encoder architecture used as a decoder pairs it with an unused encoder cache.
    cache = getattr(cache, "self_attention_cache", cache)
    flat = _flat(cache) if hasattr(cache, "layers") else []
    shapes = {(tensor.shape[1], tensor.shape[3]) for tensor in flat if tensor is not None and tensor.dim() == 4}
    if len(shapes) != 1 or any(tensor is None or tensor.dim() != 4 for tensor in flat):
        raise StageError(
            f"{type(model).__name__} does not have a key-value cache of one shape, which the traced loop needs.",
            fix="Build this model with handler.save_mode: pretrained.",
        )
    ((heads, head_dim),) = shapes
    facts = {
        "layers": len(flat) // 2,
        "heads": heads,
        "head_dim": head_dim,
        "dtype": str(flat[0].dtype).removeprefix("torch."),
    }

    def example(batch: int, past: int, new: int) -> tuple[Any, ...]:
        mask = probe.mask(model, batch, past + new, "left")
        keys = (
            torch.randn(batch, heads, past, head_dim, generator=torch.Generator().manual_seed(index))
            for index in range(len(flat))
        )
        return (probe.ids(model, batch, new, past + new), mask, *(key.to(flat[0]) for key in keys))

    eager, longest = Decoder().eval(), job["max_length"]
    shapes_to_check = [(1, 0, 5), (3, 0, 1), (4, 7, 1), (2, 9, 3), (2, longest - 1, 1), (2, 0, longest)]
    shapes_to_check = [shape for shape in shapes_to_check if shape[1] + shape[2] <= longest]
    examples = [example(*shape) for shape in shapes_to_check]
    short = min(probe.SHORT, longest)
    examples[-1][1][1, : longest - short] = 0  # a short text beside the longest
    # The longest first, before the short ones change the model's state, if it has one.
    wanted = [eager(*inputs) for inputs in reversed(examples)][::-1]
    ids, mask, *past = examples[-1]
    alone = eager(ids[1:, -short:], mask[1:, -short:], *(each[1:] for each in past))[0]
    with traceable_masks():
        graph = torch.jit.trace(  # type: ignore[no-untyped-call]
            eager, example(2, 4, 3), check_trace=False, strict=False
        )
    for number, ((batch, before, new), inputs, expected) in enumerate(
        zip(shapes_to_check, examples, wanted, strict=True)
    ):
        report("checking the trace", number, len(examples))
        where = f"batch {batch}, {before} tokens cached, {new} new"
        probe.agree(graph(*inputs), expected, where, probe.advice(model))
    return graph, facts, probe.differ([wanted[-1][0][1:]], [alone])
