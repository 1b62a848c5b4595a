"""A stand-in for AWS's torch_neuronx, for tests: nothing of AWS's, and no chip. Its functions have the signatures that
AWS documents, and enforce what Inf2 and Trn1 do; see tests/neuron_stand_in.

What it pretends, from its import on: with NEURON_STAND_IN_MACHINE, a machine with a chip and, in this process alone,
the chip's device file /dev/neuron0. Graphs are run by the CPU. A graph must return a tensor or a tuple of tensors;
the real one takes some dictionaries.
"""

from __future__ import annotations

from typing import Any

from neuron_stand_in_runtime import compiler as _compiler
from neuron_stand_in_runtime import devices as _devices
from neuron_stand_in_runtime import graph as _graph
from neuron_stand_in_runtime import machine as _machine
from neuron_stand_in_runtime import parallel as _parallel
from neuron_stand_in_runtime.calls import record as _record

_TARGETS = ("trn1", "inf2", "trn1n", "trn2")

_graph.register("forward")
__version__ = _graph._version("torch-neuronx")
if _machine.family():
    _devices.pretend()


def trace(
    func: Any,
    example_inputs: Any,
    *_: Any,
    input_output_aliases: Any = {},  # noqa: B006
    compiler_workdir: Any = None,
    compiler_args: Any = None,
    partitioner_config: Any = None,
    inline_weights_to_neff: bool = True,
    cpu_backend: bool = False,
) -> Any:
    """Compile a model. Raises RuntimeError without a chip, unless by `cpu_backend` with a target that is named both by
    --target and, before the import, by NEURON_PLATFORM_TARGET_OVERRIDE (aws-neuron-sdk#910, optimum-neuron#961)."""
    inputs = _compiler.checked(example_inputs)
    words = {
        "input_output_aliases": input_output_aliases,
        "compiler_workdir": compiler_workdir,
        "compiler_args": compiler_args,
        "partitioner_config": partitioner_config,
        "inline_weights_to_neff": inline_weights_to_neff,
        "cpu_backend": cpu_backend,
    }
    _record("torch_neuronx.trace", words, [list(one.shape) for one in inputs])
    if _:
        raise TypeError("torch_neuronx.trace() takes keywords after example_inputs")
    args = _compiler.words(compiler_args)
    generation = _target(_compiler.options(args).get("--target"), cpu_backend)
    program, outputs, cast = _compiler.compiled(
        func, inputs, compiler="neuronx-cc", module="neuronxcc", args=args, workdir=compiler_workdir
    )
    module = _graph.made(
        program,
        inputs,
        outputs,
        operator="forward",
        package="torch_neuronx",
        distribution="torch-neuronx",
        generation=generation,
        cast=cast,
    )
    if not cpu_backend:
        _graph.graph_of(module).load()
    return module


def _target(target: str | None, cpu_backend: bool) -> int:
    """The generation of NeuronCores to compile for."""
    here = _machine.family() if _machine.generation() in (2, 3) else None
    if not cpu_backend:
        if here is None:
            raise RuntimeError(
                "Bad StatusOr access: INVALID_ARGUMENT: PJRT_Client_Create: error condition "
                "nullptr != (args)->client->Error(): Init: error condition !(num_devices > 0): "
            )
        target = target or here
    elif here is None and _machine.AT_IMPORT.get("NEURON_PLATFORM_TARGET_OVERRIDE") not in _TARGETS:
        target = None
    if target not in _TARGETS:
        raise RuntimeError(
            "If you want to compile on CPU, please supply compiler argument target, with one of options "
            'trn1, inf2, trn1n, or trn2. Ex: "--target trn1"'
        )
    return _machine.GENERATIONS[target]


def dynamic_batch(neuron_script: Any) -> Any:
    """Let dimension 0 be anything: it runs in pieces of the batch that was compiled. Changes the graph in place."""
    _record("torch_neuronx.dynamic_batch", {}, _graph.graph_of(neuron_script).facts["shapes"])
    if len({shape[0] for shape in _graph.graph_of(neuron_script).facts["shapes"]}) > 1:
        raise ValueError("Dynamic batching is only supported when the 0th dimension is the same size for all inputs")
    _graph.set_facts(neuron_script, dynamic=True)
    return neuron_script


def async_load(trace: Any, enable_async_load: bool = True) -> None:
    """Have torch.jit.load start to load the graph, and the first call wait for that."""
    words = {"enable_async_load": enable_async_load}
    _record("torch_neuronx.async_load", words, _graph.graph_of(trace).facts["shapes"])
    _graph.set_facts(trace, **{"async": enable_async_load})


def lazy_load(trace: Any, enable_lazy_load: bool = True) -> None:
    """Have not torch.jit.load but the first call, or DataParallel, load the graph."""
    words = {"enable_lazy_load": enable_lazy_load}
    _record("torch_neuronx.lazy_load", words, _graph.graph_of(trace).facts["shapes"])
    _graph.set_facts(trace, lazy=enable_lazy_load)


class DataParallel(_parallel.DataParallel):
    """A graph on several of this process's cores."""

    def __init__(self, model: Any, device_ids: Any = None, dim: int = 0, set_dynamic_batching: bool = True) -> None:
        super().__init__(model, device_ids, dim, set_dynamic_batching)
