"""Scores have to be numbers: JSON has neither NaN nor infinity, and such a score means that the model is broken."""

from __future__ import annotations

import math

import torch

from ..protocol.problem import Problem


class NotFinite(Problem):
    """The model's scores for an input are NaN or infinite."""

    def __init__(self) -> None:
        super().__init__(
            "the model's scores for this input are NaN or infinite: its weights are damaged, or its values overflow "
            "the type that it is served with",
            status=500,
        )

    def at(self, place: str) -> NotFinite:
        """The same problem: no field of the input caused it."""
        del place
        return self


def usable(logits: torch.Tensor) -> bool:
    """Whether logits have neither NaN nor plus infinity, and are not all minus infinity: minus infinity excludes a
    label or a token."""
    highest = float(logits.max()) if logits.numel() else 0.0  # NaN if there is one
    return math.isfinite(highest)
