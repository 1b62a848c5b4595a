"""A stand-in for AWS's torch_neuron, for tests: nothing of AWS's, and no chip. Its functions have the signatures that
AWS documents, and enforce what Inf1 does; see tests/neuron_stand_in.

What it pretends, from its import on: with NEURON_STAND_IN_MACHINE, a machine with a chip and, in this process alone,
the chip's device file /dev/neuron0. Graphs are run by the CPU. Every operator of torch is supported, so `fallback`
changes nothing, nor do the settings of how to divide a graph; a graph must return a tensor or a tuple of tensors, also
with strict=False. torch.neuron is this module once it was imported; the real package can be imported by that name, too.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from neuron_stand_in_runtime import compiler as _compiler
from neuron_stand_in_runtime import devices as _devices
from neuron_stand_in_runtime import graph as _graph
from neuron_stand_in_runtime import machine as _machine
from neuron_stand_in_runtime import parallel as _parallel
from neuron_stand_in_runtime.calls import record as _record

_graph.register("forward_1")
__version__ = _graph._version("torch-neuron")
torch.neuron = sys.modules[__name__]
sys.modules["torch.neuron"] = sys.modules[__name__]
if _machine.family():
    _devices.pretend()


def trace(
    model: Any,
    example_inputs: Any,
    compiler_args: Any = None,
    compiler_timeout: float | None = None,
    compiler_workdir: Any = None,
    fallback: bool = True,
    dynamic_batch_size: bool = False,
    subgraph_builder_function: Any = None,
    minimum_segment_size: int = 2,
    single_fusion_ratio_threshold: float = 0.6,
    optimizations: Any = None,
    **kwargs: Any,
) -> Any:
    """Compile a model, on any machine. Further keywords go to torch.jit.trace. Raises subprocess.TimeoutExpired if the
    compiler takes longer than `compiler_timeout` seconds."""
    inputs = _compiler.checked(example_inputs)
    words = {
        "compiler_args": compiler_args,
        "compiler_timeout": compiler_timeout,
        "compiler_workdir": compiler_workdir,
        "fallback": fallback,
        "dynamic_batch_size": dynamic_batch_size,
        "subgraph_builder_function": subgraph_builder_function,
        "minimum_segment_size": minimum_segment_size,
        "single_fusion_ratio_threshold": single_fusion_ratio_threshold,
        "optimizations": optimizations,
    }
    _record("torch_neuron.trace", {**words, **kwargs}, [list(one.shape) for one in inputs])
    program, outputs, cast = _compiler.compiled(
        model,
        inputs,
        compiler="neuron-cc",
        module="neuroncc",
        args=_compiler.words(compiler_args),
        workdir=compiler_workdir,
        timeout=compiler_timeout,
        **kwargs,
    )
    module = _graph.made(
        program,
        inputs,
        outputs,
        operator="forward_1",
        package="torch_neuron",
        distribution="torch-neuron",
        generation=1,
        cast=cast,
        dynamic=dynamic_batch_size,
    )
    if _machine.generation() == 1:
        _graph.graph_of(module).load()
    return module


class DataParallel(_parallel.DataParallel):
    """A graph on several of this process's cores."""

    def __init__(self, model: Any, device_ids: Any = None, dim: int = 0) -> None:
        super().__init__(model, device_ids, dim, True)
