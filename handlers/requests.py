"""Bodies of requests, parsed and checked one by one. What is wrong with one is a `Problem` of that one."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

from handlers import tensors
from handlers.problem import Problem
from handlers.schema import EXPLAINED, INPUTS, MAX_INPUTS, PLAIN


@dataclass
class Request:
    """One request: its `inputs`, each a mapping with the task's fields, and the `form` that the answer is to have:
    "one" answer, "many" as a list, or KServe's "instances" (v1) and "tensors" (v2, with the request's `id`)."""

    inputs: list[dict[str, Any]]
    form: str = "one"
    id: Any = None
    stream: Any = None
    """Where parts of the answer go, if they were asked for."""
    answers: list[Any] = field(default_factory=list)

    def place(self, number: int) -> str:
        """Where in the request the input of that number stands."""
        names = {"one": "", "many": f"[{number}]", "instances": f"instances[{number}]", "tensors": f"inputs[{number}]"}
        return names[self.form]

    def answer(self, model: str) -> Any:
        """The body of the response of the served `model`."""
        if self.form == "instances":
            return {"predictions": self.answers}
        if self.form == "tensors":
            return tensors.reply(model, self.id, self.answers)
        return self.answers if self.form == "many" else self.answers[0]


def parse(row: dict[str, Any], task: str, *, explain: bool = False) -> Request:
    """The request in one of TorchServe's rows, for an explanation of its answers if `explain`. Raises Problem."""
    value = _value(_body(row), task)
    rule = EXPLAINED[task] if explain else INPUTS[task]
    if isinstance(value, dict) and "instances" in value and "instances" not in rule["properties"]:
        unknown = sorted(value.keys() - {"instances"})
        if unknown:
            raise Problem(f"{unknown[0]} is no field beside instances", unknown[0])
        return Request(_inputs(value["instances"], task, rule, "instances"), "instances")
    if tensors.is_tensors(value):
        return Request(_inputs(tensors.rows(value, PLAIN[task]), task, rule, "inputs"), "tensors", value.get("id"))
    if isinstance(value, list):
        return Request(_inputs(value, task, rule, ""), "many")
    return Request([_input(value, task, rule, "")])


def _body(row: dict[str, Any]) -> Any:
    for name in ("body", "data"):
        if row.get(name) is not None:
            return row[name]
    # A form (curl -F text=...) comes as a field each.
    if row.keys() - {"body", "data"}:
        return {name: _text(value, name) for name, value in row.items()}
    raise Problem("the request is empty")


def _text(value: Any, name: str = "") -> Any:
    if isinstance(value, bytes | bytearray | memoryview):
        try:
            return bytes(value).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise Problem(f"byte {error.start} is not UTF-8", name) from None
    return value


def _value(body: Any, task: str) -> Any:
    """A JSON value: parsed already by its header, or raw bytes of JSON or of plain text."""
    if not isinstance(body, bytes | bytearray | memoryview | str):
        return body
    raw = not isinstance(body, str)
    text = _text(body)
    if not text.strip():
        raise Problem("the request is empty")
    if not raw:
        return text
    start = text.lstrip()[0]
    if start in '{["':
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            if start != '"' or PLAIN[task] is None:
                raise Problem(f"the body is not JSON: {error}") from None
    return text


def _inputs(values: Any, task: str, rule: dict[str, Any], name: str) -> list[dict[str, Any]]:
    if not isinstance(values, list):
        raise Problem("expected a list of inputs", name)
    if not values:
        raise Problem("the list of inputs is empty", name)
    if len(values) > MAX_INPUTS:
        raise Problem(f"{len(values)} inputs, and a request may have {MAX_INPUTS}", name, 413)
    return [_input(value, task, rule, f"{name}[{index}]") for index, value in enumerate(values)]


def _input(value: Any, task: str, rule: dict[str, Any], where: str) -> dict[str, Any]:
    plain = PLAIN[task]
    if isinstance(value, str) and plain is not None:
        value = {plain: value}
    if not isinstance(value, dict):
        fields = ", ".join(rule["required"]) or " or ".join(way["required"][0] for way in rule["oneOf"])
        raise Problem(f"expected an object with {fields}" + (", or a text" if plain else ""), where)
    check(value, rule, where)
    return value


_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
}


def check(value: Any, rule: dict[str, Any], where: str) -> None:
    """Hold a value against the part of JSON Schema that `schema` uses. Raises Problem at the first field at fault."""
    if "anyOf" in rule:
        problems = []
        for one in rule["anyOf"]:
            try:
                return check(value, one, where)
            except Problem as problem:
                problems.append(problem)
        raise Problem(" or ".join(problem.message for problem in problems), where)
    if "enum" in rule:
        if value not in rule["enum"] or isinstance(value, bool):
            raise Problem(f"expected one of {', '.join(rule['enum'])}", where)
        return None
    kind = rule["type"]
    # JSON has one kind of number: 2.0 is an integer to JSON Schema.
    whole = kind == "integer" and isinstance(value, float) and value.is_integer()
    if not (isinstance(value, _TYPES[kind]) or whole) or (isinstance(value, bool) and kind != "boolean"):
        raise Problem(f"expected {_A[kind]}", where)
    if kind == "object":
        _check_object(value, rule, where)
    elif kind == "array":
        _check_size(value, rule, where)
        for index, item in enumerate(value):
            check(item, rule["items"], f"{where}[{index}]")
    elif kind == "string":
        _check_string(value, rule, where)
    elif kind in ("integer", "number"):
        _check_number(value, rule, where)
    return None


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
    known = rule["properties"]
    for name in value:
        if name not in known:
            raise Problem(f"unknown field; there are {', '.join(known)}", f"{path}{name}"[:100])
    for name in rule.get("required", ()):
        if name not in value:
            raise Problem("the field is missing", f"{path}{name}")
    ways = [way["required"][0] for way in rule.get("oneOf", ())]
    if ways and sum(name in value for name in ways) != 1:
        raise Problem(f"expected either {' or '.join(ways)}", where)
    for name, item in value.items():
        check(item, known[name], f"{path}{name}")


def _check_size(value: list[Any], rule: dict[str, Any], where: str) -> None:
    if len(value) < rule.get("minItems", 0):
        raise Problem("the list is empty", where)
    if len(value) > rule.get("maxItems", len(value)):
        raise Problem(f"{len(value)} items, and there may be {rule['maxItems']}", where, 413)


def _check_string(value: str, rule: dict[str, Any], where: str) -> None:
    if len(value) < rule.get("minLength", 0) or not re.search(rule.get("pattern", ""), value):
        raise Problem("the text is empty", where)
    if len(value) > rule.get("maxLength", len(value)):
        raise Problem(f"{len(value)} characters, and a text may have {rule['maxLength']}", where, 413)
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise Problem("half of a surrogate pair (\\ud800 to \\udfff) is no character", where) from None


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
