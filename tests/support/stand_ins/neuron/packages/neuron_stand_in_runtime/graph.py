"""Compiled graphs, pretended: TorchScript modules with one operator, which this process must have registered.

They can be saved and loaded as any other, keep what they were compiled for, and run on the CPU, but only on a pretended
machine with a chip.
"""

from __future__ import annotations

import ctypes
import json
import threading
from importlib import metadata
from io import BytesIO
from typing import Any

import torch

from . import machine
from .calls import record
from .compiler import rounded

_library = torch.library.Library("neuron", "DEF")
_graphs: dict[int, Graph] = {}


class Graph:
    """A graph of this process. `facts`: what is saved with it; see `made`."""

    def __init__(self, program: bytes, facts: dict[str, Any]) -> None:
        self.program, self.facts = program, facts
        self._lock = threading.Lock()
        self._module: Any = None
        self._loading: threading.Thread | None = None
        self._failed: BaseException | None = None

    def start(self) -> None:
        """Load it as torch.jit.load does: now, in the background, or not yet."""
        if not self.facts["lazy"]:
            self.send()

    def send(self) -> None:
        """Load it onto this process's cores: now, or in the background."""
        if not self.facts["async"]:
            self.load()
        elif self._loading is None:
            self._loading = threading.Thread(target=self._load_quietly, daemon=True)
            self._loading.start()

    def load(self) -> None:
        """Load it onto this process's cores. Raises RuntimeError if it can have none."""
        with self._lock:
            if self._module is None:
                cores = machine.take(self.facts["generation"])
                record(f"{self.facts['package']}: load", {"cores": cores}, self.facts["shapes"])
                self._module = torch.jit.load(BytesIO(self.program)).eval()

    def _load_quietly(self) -> None:
        try:
            self.load()
        except BaseException as error:
            self._failed = error

    def run(self, inputs: list[Any], dynamic: bool) -> list[Any]:
        """Its results, a list even of one. `dynamic`: dimension 0 may be anything."""
        if self._loading is not None:
            self._loading.join()
            if self._failed is not None:
                raise self._failed
        self.load()
        self._check_version()
        record(f"{self.facts['package']}: run", {"dynamic": dynamic}, [list(one.shape) for one in inputs])
        self._check_inputs(inputs, dynamic)
        with torch.no_grad():
            return self._in_pieces(inputs) if dynamic else self._run(inputs)

    def _run(self, inputs: list[Any]) -> list[Any]:
        out = self._module(*inputs)
        return [rounded(one, self.facts["cast"]) for one in (out if isinstance(out, tuple) else (out,))]

    def _in_pieces(self, inputs: list[Any]) -> list[Any]:
        """Run it as often as needed, the last time with rows of zeros added."""
        batch, rows = self.facts["shapes"][0][0], inputs[0].shape[0]
        pieces = []
        for start in range(0, rows, batch):
            part = [one[start : start + batch] for one in inputs]
            short = batch - part[0].shape[0]
            pieces.append(self._run([torch.cat([one, one.new_zeros(short, *one.shape[1:])]) for one in part]))
        return [torch.cat(results)[:rows] for results in zip(*pieces)]  # noqa: B905

    def _check_version(self) -> None:
        here, there = _version(self.facts["distribution"]), self.facts["version"]
        if here.split(".")[:2] != there.split(".")[:2]:
            raise RuntimeError(
                "Could not load the model status=2 message=Invalid: "
                f"Model was compiled with {self.facts['distribution']} {there}, and the current runtime is {here}"
            )

    def _check_inputs(self, inputs: list[Any], dynamic: bool) -> None:
        if len(inputs) != len(self.facts["shapes"]):
            raise RuntimeError(f"Expected {len(self.facts['shapes'])} input tensors, received {len(inputs)}.")
        free = 1 if dynamic else 0
        for number, (one, shape, kind) in enumerate(zip(inputs, self.facts["shapes"], self.facts["types"])):  # noqa: B905
            if list(one.shape)[free:] != shape[free:] or one.dim() != len(shape):
                raise RuntimeError(
                    f"Incorrect tensor shape at input tensor #{number}: "
                    f"received {_spaced(one.shape)}, expected {_spaced(shape)}."
                )
            if str(one.dtype) != kind:
                raise RuntimeError(
                    f"Incorrect tensor type at input tensor #{number}: received {one.dtype}, expected {kind}."
                )
        if dynamic and len({one.shape[0] for one in inputs}) > 1:
            raise RuntimeError("Dynamic batching needs the same size of dimension 0 in all input tensors.")


def _spaced(shape: Any) -> str:
    return " ".join(str(size) for size in shape)


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "0.0"


def register(operator: str) -> None:
    """Have TorchScript know the operators of one package's graphs: neuron::OPERATOR and neuron::load_OPERATOR.

    What they raise in Python would reach the caller without its text in torch 1.13. So they return it.
    """
    _library.define(f"load_{operator}(Tensor program, str facts) -> (int, str)")
    _library.impl(f"load_{operator}", _load, "CompositeExplicitAutograd")
    _library.define(f"{operator}(Tensor[] inputs, int handle) -> (Tensor[], str)")
    _library.impl(operator, _forward, "CompositeExplicitAutograd")


def _load(program: Any, facts: str) -> tuple[int, str]:
    graph = Graph(ctypes.string_at(program.data_ptr(), program.numel()), json.loads(facts))
    handle = _keep(graph)
    try:
        graph.start()
    except Exception as error:
        return handle, f"\n{error}"
    return handle, ""


def _forward(inputs: list[Any], handle: int) -> tuple[list[Any], str]:
    graph = _graphs[handle]
    try:
        return graph.run(inputs, graph.facts["dynamic"]), ""
    except Exception as error:
        return [], f"\n{error}"


def _keep(graph: Graph) -> int:
    number = len(_graphs)
    _graphs[number] = graph
    return number


class NeuronModel(torch.nn.Module):
    """What is saved of a graph: `program`, bytes of TorchScript, and `facts`, JSON; and `handle`, its number here."""

    def __init__(self, program: torch.Tensor, facts: str, handle: int) -> None:
        super().__init__()
        self.program = program
        self.facts = facts
        self.handle = handle


# The lookup of a failure's text fails, with that text, as an error of C++ does: with a RuntimeError.
_CODE = """
def forward(self, {typed}):
    out, failure = torch.ops.neuron.{operator}([{names}], self.handle)
    good = {{"": 0}}
    first = good[failure]
    return {result}

def __getstate__(self):
    return (self.program, self.facts, self.training)

def __setstate__(self, state: Tuple[Tensor, str, bool]):
    self.program = state[0]
    self.facts = state[1]
    self.training = state[2]
    handle, failure = torch.ops.neuron.load_{operator}(self.program, self.facts)
    good = {{"": 0}}
    self.handle = handle + good[failure]
"""


def made(
    program: bytes,
    inputs: tuple[Any, ...],
    outputs: int,
    *,
    operator: str,
    package: str,
    distribution: str,
    generation: int,
    cast: str | None,
    dynamic: bool = False,
) -> Any:
    """A compiled program as a ScriptModule, of which this process has not loaded any graph yet."""
    facts = {
        "package": package,
        "distribution": distribution,
        "version": _version(distribution),
        "generation": generation,
        "shapes": [list(one.shape) for one in inputs],
        "types": [str(one.dtype) for one in inputs],
        "cast": cast,
        "tuple": outputs > 0,
        "dynamic": dynamic,
        "lazy": False,
        "async": False,
    }
    names = [f"tensor_{number}" for number in range(len(inputs))]
    results = [f"out[first + {number}]" for number in range(outputs)]
    code = _CODE.format(
        operator=operator,
        names=", ".join(names),
        typed=", ".join(f"{name}: Tensor" for name in names),
        result=f"({', '.join(results)},)" if outputs else "out[first]",
    )
    held = torch.frombuffer(bytearray(program), dtype=torch.uint8)
    # Of a class of its own: TorchScript would have one class's modules share their methods.
    kind = type("NeuronModel", (NeuronModel,), {})
    module: Any = torch.jit.script(kind(held, json.dumps(facts), _keep(Graph(program, facts))))
    for method in code.strip().split("\n\n"):
        module.define(f"{method}\n")
    return module.eval()


def graph_of(module: Any) -> Graph:
    """The graph of a ScriptModule. Raises ValueError if it is none of ours."""
    number = getattr(module, "handle", None)
    if not isinstance(number, int) or not hasattr(module, "program"):
        raise ValueError(f"{type(module).__name__} is no compiled Neuron graph, as trace() returns it")
    return _graphs[number]


def set_facts(module: Any, **facts: bool) -> None:
    """Change what is saved with a graph, and how it behaves in this process."""
    graph = graph_of(module)
    graph.facts.update(facts)
    module.facts = json.dumps(graph.facts)
