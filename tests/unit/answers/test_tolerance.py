"""By how much scores may differ."""

from __future__ import annotations

import pytest

from mar_pipeline.answers import tolerance
from mar_pipeline.config.values import HARDWARE


@pytest.mark.parametrize(
    ("dtype", "hardware", "casts", "allowed"),
    [
        ("float32", "cpu", False, 1e-4),
        ("float32", "gpu", False, 1e-4),
        ("float64", "cpu", False, 1e-4),
        ("bfloat16", "cpu", False, 2e-2),
        ("float16", "gpu", False, 2e-2),
        ("float32", "neuronx", False, 1e-3),
        ("float32", "neuronx", True, 2e-2),
        ("bfloat16", "neuronx", False, 2e-2),
        ("float32", "neuron", False, 2e-2),
        ("float32", "neuron", True, 2e-2),
    ],
)
def test_a_tolerance_is_that_of_the_weights_and_the_chip(
    dtype: str, hardware: str, casts: bool, allowed: float
) -> None:
    assert tolerance.of_scores(dtype, hardware, casts=casts) == allowed


def test_every_kind_of_hardware_has_one() -> None:
    assert set(tolerance.FLOAT32) == set(HARDWARE)
