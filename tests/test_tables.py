"""Archives hold tables of their own, since they are served where this package is not installed: copies of the
pipeline's."""

from __future__ import annotations

from handlers import runtimes
from handlers.runtimes import neuron_package
from mar_pipeline.builder.backends import BACKENDS
from mar_pipeline.config.values import COMPILED
from mar_pipeline.host import toolchain
from mar_pipeline.host.chips import CHIPS


def test_chips_are_the_same_where_models_are_compiled_and_where_they_are_served() -> None:
    ours = {chip.name: (chip.package, chip.distribution, chip.machines) for chip in CHIPS.values()}
    assert ours == runtimes.CHIPS
    assert neuron_package.REPOSITORY == toolchain.REPOSITORY
    assert set(COMPILED) == set(CHIPS) < set(BACKENDS)
