"""KServe's v2 protocol: a tensor for each field in, one tensor of answers out, each answer as JSON."""

from __future__ import annotations

import json
from typing import Any

from handlers.problem import Problem

_KINDS: dict[str, tuple[type, ...]] = {
    "BYTES": (str,),
    "BOOL": (bool,),
    **{f"{sign}INT{bits}": (int,) for sign in ("", "U") for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": (int, float) for bits in (16, 32, 64)},
}


def is_tensors(value: Any) -> bool:
    """Whether a body is of this protocol."""
    return (
        isinstance(value, dict)
        and isinstance(value.get("inputs"), list)
        and value.keys() <= {"id", "inputs", "parameters", "outputs"}
    )


def rows(body: dict[str, Any], plain: str | None) -> list[dict[str, Any]]:
    """An input of the task for each element of the tensors, all of one length.

    A tensor is named like its field; the only tensor of a task for which one text is enough may have any name.
    `parameters` go to every input. Raises Problem.
    """
    named: dict[str, list[Any]] = {}
    for number, tensor in enumerate(body["inputs"]):
        where = f"inputs[{number}]"
        values = _values(tensor, where)
        name = plain if plain and len(body["inputs"]) == 1 else tensor["name"]
        if name in named:
            raise Problem(f"a second tensor {name}", where)
        named[name] = values
    if len({len(values) for values in named.values()}) != 1:
        lengths = ", ".join(f"{name} {len(values)}" for name, values in named.items()) or "there is none"
        raise Problem(f"expected tensors of one length: {lengths}", "inputs")
    parameters = body.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise Problem("expected an object", "parameters")
    return [{**parameters, **dict(zip(named, values, strict=True))} for values in zip(*named.values(), strict=True)]


def _values(tensor: Any, where: str) -> list[Any]:
    if not isinstance(tensor, dict) or not isinstance(tensor.get("name"), str):
        raise Problem("expected an object with name, shape, datatype and data", where)
    kinds = _KINDS.get(str(tensor.get("datatype")))
    if kinds is None:
        raise Problem(f"expected one of {', '.join(_KINDS)}", f"{where}.datatype")
    values = _flat(tensor.get("data"), where)
    for value in values:
        if not isinstance(value, kinds) or (isinstance(value, bool) and kinds != (bool,)):
            raise Problem(f"expected values of the datatype {tensor['datatype']}", f"{where}.data")
    shape = tensor.get("shape")
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
        raise Problem("expected a list of whole numbers", f"{where}.shape")
    count = 1
    for size in shape:
        count *= size
    if count != len(values):
        raise Problem(f"{count} values by its shape, and {len(values)} in data", where)
    return values


def _flat(data: Any, where: str) -> list[Any]:
    """The values of a list, or of lists of lists, row by row."""
    if not isinstance(data, list):
        raise Problem("expected a list", f"{where}.data")
    values, pending = [], list(reversed(data))
    while pending:
        value = pending.pop()
        if isinstance(value, list):
            pending += reversed(value)
        else:
            values.append(value)
    return values


def reply(model: str, id_: Any, answers: list[Any]) -> dict[str, Any]:
    """The response to a request of this protocol."""
    texts = [json.dumps(answer, ensure_ascii=False) for answer in answers]
    tensor = {"name": "answers", "shape": [len(texts)], "datatype": "BYTES", "data": texts}
    return {"model_name": model, **({"id": id_} if id_ is not None else {}), "outputs": [tensor]}
