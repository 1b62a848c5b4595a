"""Parses and checks request bodies one by one. An error in one raises a `Problem` for that request only."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from . import bodies, tensors
from .problem import Problem
from .schema import EXPLAINED, IGNORED, INPUTS, MAX_CHARACTERS_TOGETHER, MAX_INPUTS, PLAIN, TENSORS, names


@dataclass
class Request:
    """One request: its `inputs`, each a mapping with the task's fields, and the `form` of its answer: "one", "many" (a
    list), or KServe's "instances" (v1) and "tensors" (v2, with the request's `id`)."""

    inputs: list[dict[str, Any]]
    form: str = "one"
    id: Any = None
    stream: Any = None
    """The stream for parts of the answer, if the request asks for one."""
    answers: list[Any] = field(default_factory=list)
    explain: bool = False
    """Whether the request is for explanations."""
    seconds: float = 0.0
    """The estimated time for this request alone."""

    def place(self, number: int) -> str:
        """The path of the input with that number in the request."""
        return _place(self.form, number)

    def answer(self, model: str) -> Any:
        """The response body; `model` is the served model's name."""
        if self.form == "instances":
            return {"predictions": self.answers}
        if self.form == "tensors":
            return tensors.reply(model, self.id, self.answers)
        return self.answers if self.form == "many" else self.answers[0]


_LISTS = {"many": "", "instances": "instances", "tensors": "inputs"}
"""Form -> the field with its list of inputs."""


def _place(form: str, number: int) -> str:
    # inputs[1] is a tensor, inputs.row[1] the input made of the second value of each tensor.
    return "" if form == "one" else f"{_LISTS[form]}{'.row' if form == 'tensors' else ''}[{number}]"


def parse(row: dict[str, Any], task: str, *, explain: bool = False) -> Request:
    """The request in one of TorchServe's rows; with `explain`, a request for explanations. Raises Problem."""
    rule = EXPLAINED[task] if explain else INPUTS[task]
    request = _parsed(bodies.value(row, task, rule), task, rule)
    request.explain = explain
    return request


def _parsed(value: Any, task: str, rule: dict[str, Any]) -> Request:
    if isinstance(value, dict) and "instances" in value and "instances" not in rule["properties"]:
        ignored = {name for name, one in rule["properties"].items() if one == IGNORED}
        unknown = sorted(value.keys() - {"instances"} - ignored)
        if unknown:
            raise Problem(f"{unknown[0]} is not allowed beside instances", unknown[0])
        return Request(_inputs(value["instances"], task, rule, "instances"), "instances")
    if tensors.is_tensors(value):
        check(value, TENSORS, "")
        rows = tensors.rows(value, PLAIN[task])
        return Request(_inputs(rows, task, rule, "tensors"), "tensors", value.get("id"))
    if isinstance(value, list):
        return Request(_inputs(value, task, rule, "many"), "many")
    return Request([_input(value, task, rule, "")])


def _inputs(values: Any, task: str, rule: dict[str, Any], form: str) -> list[dict[str, Any]]:
    name = _LISTS[form]
    if not isinstance(values, list):
        raise Problem("expected a list of inputs", name)
    if not values:
        raise Problem("the list of inputs is empty", name)
    if len(values) > MAX_INPUTS:
        raise Problem(f"{len(values)} inputs; a request may have {MAX_INPUTS}", name, 413)
    inputs = [_input(value, task, rule, _place(form, index)) for index, value in enumerate(values)]
    characters = sum(len(text) for one in inputs for text in one.values() if isinstance(text, str))
    if characters > MAX_CHARACTERS_TOGETHER:
        raise Problem(f"{characters} characters; a request may have {MAX_CHARACTERS_TOGETHER}", name, 413)
    return inputs


def _input(value: Any, task: str, rule: dict[str, Any], where: str) -> dict[str, Any]:
    plain = PLAIN[task]
    if isinstance(value, str) and plain is not None:
        value = {plain: value}
    if not isinstance(value, dict):
        fields = ", ".join(rule["required"]) or " or ".join(way["required"][0] for way in rule["oneOf"])
        raise Problem(f"expected an object with {fields}" + (", or a text" if plain else ""), where)
    check(value, rule, where)
    kept = {name: field for name, field in value.items() if rule["properties"][name] != IGNORED}
    if plain == "prompt" and "text" in kept:
        kept["prompt"] = kept.pop("text")
    return kept


_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
}


def check(value: Any, rule: dict[str, Any], where: str) -> None:
    """Check a value with the part of JSON Schema that `schema` uses. Raises Problem for the first invalid field."""
    if rule == IGNORED:
        return None
    if "anyOf" in rule:
        return check(value, _fitting(value, rule["anyOf"], where), where)
    if "enum" in rule:
        if value not in rule["enum"] or isinstance(value, bool):
            raise Problem(f"expected one of {', '.join(rule['enum'])}", where)
        return None
    kind = rule["type"]
    if not _is(value, kind):
        raise Problem(f"expected {_A[kind]}", where)
    if kind == "object":
        _check_object(value, rule, where)
    elif kind == "array":
        _check_size(value, rule, where)
        for index, item in enumerate(value if "items" in rule else ()):
            check(item, rule["items"], f"{where}[{index}]")
    elif kind == "string":
        _check_string(value, rule, where)
    elif kind in ("integer", "number"):
        _check_number(value, rule, where)
    return None


def _fitting(value: Any, rules: list[dict[str, Any]], where: str) -> dict[str, Any]:
    """The one of several rules whose type a value has."""
    for one in rules:
        if _is(value, one["type"]):
            return one
    raise Problem("expected " + " or ".join(_A[one["type"]] for one in rules), where)


def _is(value: Any, kind: str) -> bool:
    """Whether a value has a type of JSON Schema, where 2.0 is an integer."""
    if isinstance(value, bool):
        return kind == "boolean"
    return isinstance(value, _TYPES[kind]) or (kind == "integer" and isinstance(value, float) and value.is_integer())


_A = {
    "object": "an object",
    "array": "a list",
    "string": "a text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
}


def _check_object(value: dict[str, Any], rule: dict[str, Any], where: str) -> None:
    path = f"{where}." if where else ""
    properties = rule.get("properties", value)
    for name in value:
        if name not in properties:
            raise Problem(f"unknown field; the fields are {names(properties)}", f"{path}{name}"[:100])
    for name in rule.get("required", ()):
        if name not in value:
            raise Problem("the field is missing", f"{path}{name}")
    ways = [way["required"][0] for way in rule.get("oneOf", ())]
    if ways and sum(name in value for name in ways) != 1:
        raise Problem(f"expected either {' or '.join(ways)}", where)
    for name, item in value.items() if "properties" in rule else ():
        check(item, properties[name], f"{path}{name}")


def _check_size(value: list[Any], rule: dict[str, Any], where: str) -> None:
    if rule.get("minItems") == rule.get("maxItems", -1) != len(value):
        raise Problem(f"expected {rule['minItems']} items", where)
    if len(value) < rule.get("minItems", 0):
        raise Problem("the list is empty", where)
    if len(value) > rule.get("maxItems", len(value)):
        raise Problem(f"{len(value)} items; {rule['maxItems']} are allowed", where, 413)


def _check_string(value: str, rule: dict[str, Any], where: str) -> None:
    if len(value) < rule.get("minLength", 0) or not re.search(rule.get("pattern", ""), value):
        raise Problem("the text is empty", where)
    if len(value) > rule.get("maxLength", len(value)):
        raise Problem(f"{len(value)} characters; a text may have {rule['maxLength']}", where, 413)
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise Problem("half of a surrogate pair (\\ud800 to \\udfff) is not a character", where) from None


def _check_number(value: float, rule: dict[str, Any], where: str) -> None:
    lowest, above, highest = rule.get("minimum"), rule.get("exclusiveMinimum"), rule.get("maximum")
    if value != value or value in (float("inf"), float("-inf")):
        raise Problem("expected a number", where)
    if lowest is not None and value < lowest:
        raise Problem(f"must be {lowest} or more", where)
    if above is not None and value <= above:
        raise Problem(f"must be above {above}", where)
    if highest is not None and value > highest:
        raise Problem(f"must be {highest} or less", where)
