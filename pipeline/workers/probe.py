"""Inputs that a trace is tried with, and whether its outputs are the model's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import StageError

# Largest difference that reordered float32 sums made between a trace and eager, on every family tried, was 2e-5.
RELATIVE_FLOAT32, RELATIVE_SIXTEEN_BITS = 1e-4, 2e-2
"""By how much a trace's outputs may differ from the model's, as parts of the largest of them."""

# Batch and length beside the model's longest, with the side that is padded.
SHAPES = ((1, 5, "right"), (3, 1, "right"), (4, 40, "left"), (2, 17, "right"))


def ids(model: Any, batch: int, length: int, seed: int) -> Any:
    import torch

    generator = torch.Generator().manual_seed(seed)
    size = model.get_input_embeddings().num_embeddings
    return torch.randint(0, size, (batch, length), generator=generator).to(model.device)


def mask(model: Any, batch: int, length: int, side: str) -> Any:
    """Row i has i columns fewer, cut from `side`; every row keeps one at least."""
    import torch

    mask = torch.ones(batch, length, dtype=torch.long)
    for row in range(batch):
        cut = min(row * max(1, length // 8), length - 1)
        if cut:
            mask[row, slice(0, cut) if side == "left" else slice(length - cut, None)] = 0
    return mask.to(model.device)


def agree(got: Sequence[Any], wanted: Sequence[Any], where: str) -> None:
    import torch

    for index, (one, other) in enumerate(zip(got, wanted, strict=True)):
        if one.shape != other.shape:
            raise StageError(
                f"The trace gives an output of shape {list(one.shape)} at {where}, and the model {list(other.shape)}.",
                "The architecture takes a path that depends on its input, which a trace cannot hold.",
                "Build this model with save_mode: pretrained.",
            )
        difference = (one.float() - other.float()).abs()
        limit = RELATIVE_FLOAT32 if one.dtype == torch.float32 else RELATIVE_SIXTEEN_BITS
        worst = float(difference.max()) if difference.numel() else 0.0
        if not worst <= limit * max(1.0, float(other.float().abs().max()) if other.numel() else 1.0):
            raise StageError(
                f"The trace differs from the model by {worst:.2g} in output {index} at {where}.",
                "The architecture takes a path that depends on its input, which a trace cannot hold.",
                "Build this model with save_mode: pretrained, or try handler.attn_implementation: eager.",
            )
