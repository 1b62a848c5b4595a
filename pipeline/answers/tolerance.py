"""By how much a score may differ from the original model's, where `verify.tolerance` does not say: absolute numbers."""

from __future__ import annotations

FLOAT32 = {
    "cpu": 1e-4,
    "gpu": 1e-4,
    # Another machine's sums go in another order.
    "neuronx": 1e-3,
    # Inf1 multiplies in bfloat16 whatever it is told (AWS's reference of neuron-cc, --fast-math).
    "neuron": 2e-2,
}
"""Of a model in float32 that nothing casts, by `handler.hardware`."""

SIXTEEN_BITS = 2e-2
"""Of a model in 16 bits, or cast to them. They have some three digits, and padding alone moves the last of them."""


def of_scores(dtype: str, hardware: str, *, casts: bool) -> float:
    """For weights of a type that run on a kind of hardware, whose compiler may cast or not."""
    return SIXTEEN_BITS if casts or dtype in ("bfloat16", "float16") else FLOAT32[hardware]
