"""Rewrites a trace so that oneDNN computes its linear layers.

torch.jit cannot trace a product with a weight in oneDNN's layout. But a loaded graph can be rewritten: each product
becomes `linear.multiply`, and its weight becomes another input of the graph, which the runtime passes at each call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F

from .linear import Layer, eligible, fastest, multiply, prepared


def speed_up(module: Any, rows: Sequence[int], *, shared: bool) -> tuple[str, Callable[..., Any]]:
    """The fastest way for the linear layers of a loaded trace, as `linear.fastest` names it, and the function to call
    instead of `module`, with the same inputs."""
    graph = module.inlined_graph.copy()
    tensors = module.state_dict(keep_vars=True)
    products = [(node, layer) for node in _nodes(graph) if (layer := _layer(node, tensors))]
    way = fastest([layer for _, layer in products], rows, shared=shared)
    if way == "torch":
        return way, module
    # Tied layers share a prepared weight, unless one of them has it transposed: hence shape and stride in the key.
    weights: dict[Any, torch.Tensor] = {}
    prepared_weights: list[torch.Tensor] = []
    product = torch.jit.script(multiply).inlined_graph
    for node, layer in products:
        place = layer.weight.data_ptr(), layer.weight.shape, layer.weight.stride()
        if place not in weights:
            weights[place] = prepared(layer.weight, way, rows)
        prepared_weights.append(weights[place])
        _replace(graph, node, product)
    graph.lint()
    function = torch._C._create_function_from_graph("forward", graph)
    return way, lambda *inputs: function(module._c, *inputs, *prepared_weights)


def _nodes(graph: Any) -> Iterator[Any]:
    for kind in ("aten::linear", "aten::addmm"):
        yield from graph.findAllNodes(kind)


def _parts(node: Any) -> tuple[Any, Any, Any]:
    """Input, weight and bias of a product."""
    values = list(node.inputs())
    return (values[0], values[1], values[2]) if node.kind() == "aten::linear" else (values[1], values[2], values[0])


def _layer(node: Any, tensors: dict[str, Any]) -> Layer | None:
    """The linear layer that a node computes; None if oneDNN cannot compute it."""
    _, weight, bias = (_tensor(value, tensors) for value in _parts(node))
    if not eligible(weight):
        return None
    weight, linear = weight.detach(), node.kind() == "aten::linear"
    out = weight.shape[0 if linear else 1]
    # torch also adds a bias that broadcasts, or one that is computed; oneDNN takes only a parameter of size [out].
    plain = bias.shape == (out,) if bias is not None else _parts(node)[2].node().mustBeNone()
    if not plain:
        return None
    if linear:
        return Layer(weight, bias, partial(F.linear, weight=weight, bias=bias))
    factors = [value.toIValue() for value in list(node.inputs())[3:]]
    if any(factor != 1 for factor in factors):
        return None
    return Layer(weight.t(), bias, lambda x: torch.addmm(bias, x, weight))


def _tensor(value: Any, tensors: dict[str, Any]) -> Any:
    """The module's tensor that a value stands for; None if it is not a parameter or buffer."""
    names: list[str] = []
    node = value.node()
    while node.kind() == "prim::GetAttr":
        names.append(node.s("name"))
        node = next(node.inputs()).node()
    return tensors.get(".".join(reversed(names)))


def _replace(graph: Any, node: Any, product: Any) -> None:
    """Replace a node by `multiply`'s graph, whose weight becomes a new last input of the graph."""
    data, _, bias = _parts(node)
    weight = graph.addInput()
    weight.setType(torch._C.TensorType.get())
    graph.setInsertPoint(node)
    (output,) = graph.insertGraph(product, [weight, bias, data])
    output.setType(node.output().type())
    node.output().replaceAllUsesWith(output)
    node.destroy()
