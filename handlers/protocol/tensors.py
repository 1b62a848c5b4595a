"""KServe's v2 protocol: the request has a tensor for each field, the response one tensor with the answers as JSON."""

from __future__ import annotations

import json
from typing import Any

from .problem import Problem

KINDS: dict[str, tuple[type, ...]] = {
    "BYTES": (str,),
    "BOOL": (bool,),
    **{f"{sign}INT{bits}": (int,) for sign in ("", "U") for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": (int, float) for bits in (16, 32, 64)},
}
"""Datatype -> the Python types of its JSON values."""


def is_tensors(value: Any) -> bool:
    """Whether a body uses this protocol."""
    return isinstance(value, dict) and "inputs" in value


def rows(body: dict[str, Any], plain: str | None) -> list[dict[str, Any]]:
    """The inputs of a body that fits `schema.TENSORS`: one for each element of its tensors, which have equal lengths.

    A tensor has the name of its field; the only tensor of a task that takes a plain text may have any name.
    `parameters` are added to every input. Raises Problem.
    """
    named: dict[str, list[Any]] = {}
    for number, tensor in enumerate(body["inputs"]):
        where = f"inputs[{number}]"
        values = _values(tensor, where)
        name = plain if plain and len(body["inputs"]) == 1 else tensor["name"]
        if name in named:
            raise Problem(f"there is a second tensor {name}", where)
        named[name] = values
    if len({len(values) for values in named.values()}) != 1:
        lengths = ", ".join(f"{name} {len(values)}" for name, values in named.items()) or "there is none"
        raise Problem(f"expected tensors of the same length: {lengths}", "inputs")
    parameters = body.get("parameters", {})
    return [{**parameters, **dict(zip(named, values))} for values in zip(*named.values())]


def _values(tensor: dict[str, Any], where: str) -> list[Any]:
    kinds = KINDS[tensor["datatype"]]
    values = _flat(tensor["data"])
    for value in values:
        if not isinstance(value, kinds) or (isinstance(value, bool) and kinds != (bool,)):
            raise Problem(f"expected values of the datatype {tensor['datatype']}", f"{where}.data")
    if not _fits(tensor["shape"], len(values)):
        raise Problem(f"data has {len(values)} values, which does not match the shape", where)
    return values


def _fits(shape: list[int], count: int) -> bool:
    """Whether a shape has `count` values. Integers in JSON may be huge, so the product is not computed beyond
    `count`."""
    if 0 in shape:
        return count == 0
    product = 1
    for size in shape:
        product *= int(size)
        if product > count:
            return False
    return product == count


def _flat(data: list[Any]) -> list[Any]:
    """The values of a nested list, row by row."""
    values, pending = [], list(reversed(data))
    while pending:
        value = pending.pop()
        if isinstance(value, list):
            pending += reversed(value)
        else:
            values.append(value)
    return values


def reply(model: str, id_: Any, answers: list[Any]) -> dict[str, Any]:
    """The response body in this protocol."""
    texts = [json.dumps(answer, ensure_ascii=False) for answer in answers]
    tensor = {"name": "answers", "shape": [len(texts)], "datatype": "BYTES", "data": texts}
    return {"model_name": model, **({"id": id_} if id_ is not None else {}), "outputs": [tensor]}
