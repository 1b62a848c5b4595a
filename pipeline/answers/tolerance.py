"""The default tolerances of scores, where `verify.tolerance` is not set: absolute differences."""

from __future__ import annotations

FLOAT32 = {
    "cpu": 1e-4,
    "gpu": 1e-4,
    # Another machine sums in another order.
    "neuronx": 1e-3,
    # Inf1 multiplies in bfloat16 with every option (AWS's reference of neuron-cc, --fast-math).
    "neuron": 2e-2,
}
"""For a float32 model without casts, by `handler.hardware`."""

REDUCED = {
    "bfloat16": 2e-2,
    "float16": 2e-2,
    "hardware.auto_cast": 2e-2,
}
"""For a model in 16 bits, or cast to them. Scores have about three digits then, and padding alone changes the last."""


def of_scores(dtype: str, hardware: str, *, casts: bool) -> float:
    """The tolerance for weights of `dtype` on `hardware`; `casts` if its compiler casts to 16 bits."""
    return REDUCED["hardware.auto_cast"] if casts else REDUCED.get(dtype, FLOAT32[hardware])
