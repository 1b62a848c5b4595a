"""Inputs that a trace is checked with, and the comparison of its outputs with the model's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import StageError

# The largest difference between trace and eager by reordered float32 sums, over all families, was 2e-5.
RELATIVE_FLOAT32, RELATIVE_SIXTEEN_BITS = 1e-4, 2e-2
"""The largest allowed difference of a trace's outputs from the model's, relative to the largest output."""

# (batch, length, padded side), in addition to the model's longest length.
SHAPES = ((1, 5, "right"), (3, 1, "right"), (4, 40, "left"), (2, 17, "right"))


SHORT = 4
"""Tokens of a text beside one of the model's longest length."""

BESIDE = "right, all but the first tokens of a row,"
"""The padding of a short text beside a longer one."""


def ids(model: Any, batch: int, length: int, seed: int) -> Any:
    import torch

    generator = torch.Generator().manual_seed(seed)
    size = model.get_input_embeddings().num_embeddings
    return torch.randint(0, size, (batch, length), generator=generator).to(model.device)


def mask(model: Any, batch: int, length: int, side: str) -> Any:
    """An attention mask [batch, length]: row i has i steps more padding on `side` than row 0; at least one token is
    left. With BESIDE, the rows after the first have SHORT tokens."""
    import torch

    mask = torch.ones(batch, length, dtype=torch.long)
    for row in range(batch):
        step = max(0, length - SHORT) if side == BESIDE else max(1, length // 8)
        cut = min(row * step, length - 1)
        if cut:
            mask[row, slice(0, cut) if side == "left" else slice(length - cut, None)] = 0
    return mask.to(model.device)


def differ(ones: Sequence[Any], others: Sequence[Any]) -> bool:
    """Whether the outputs for a text differ from those for the same text in another batch."""
    import torch

    def far(one: Any, other: Any) -> bool:
        limit = RELATIVE_FLOAT32 if one.dtype == torch.float32 else RELATIVE_SIXTEEN_BITS
        difference = (one.float() - other.float()).abs()
        return float(difference.max()) > limit * max(1.0, float(other.float().abs().max()))

    return any(far(one, other) for one, other in zip(ones, others, strict=True))


def advice(model: Any) -> str:
    """What to do about a model whose trace fails."""
    eager = getattr(model.config, "_attn_implementation", None) == "eager"
    more = "" if eager else ", or try handler.attn_implementation: eager"
    return f"Build this model with handler.save_mode: pretrained{more}."


def agree(actual: Sequence[Any], expected: Sequence[Any], where: str, do: str) -> None:
    """Raises StageError if outputs differ in shape, or by more than the tolerance relative to the largest value, with
    the advice `do`."""
    import torch

    for index, (one, other) in enumerate(zip(actual, expected, strict=True)):
        if one.shape != other.shape:
            raise StageError(
                f"The trace has an output of shape {list(one.shape)} at {where}, the model {list(other.shape)}.",
                "The architecture takes a path that depends on its input, which a trace cannot record.",
                do,
            )
        difference = (one.float() - other.float()).abs()
        limit = RELATIVE_FLOAT32 if one.dtype == torch.float32 else RELATIVE_SIXTEEN_BITS
        worst = float(difference.max()) if difference.numel() else 0.0
        if not worst <= limit * max(1.0, float(other.float().abs().max()) if other.numel() else 1.0):
            raise StageError(
                f"The trace differs from the model by {worst:.2g} in output {index} at {where}.",
                "The architecture takes a path that depends on its input, which a trace cannot record.",
                do,
            )
