"""Reads a request's body: JSON, plain text, or the fields of a form, whose types the schema gives them."""

from __future__ import annotations

import json
import re
from typing import Any

from .problem import Problem
from .schema import IGNORED, PLAIN, names

TARGET = "target"
"""The one field that may stand beside a whole body, where TorchServe's own handlers look for it."""


def value(row: dict[str, Any], task: str, rule: dict[str, Any]) -> Any:
    """The JSON value of one of TorchServe's rows; `rule` is the schema of one input. Raises Problem."""
    for name in ("body", "data"):
        if row.get(name) is None:
            continue
        others = sorted(row.keys() - {name, TARGET})
        if others:
            raise Problem(f"no other form field or URL parameter is allowed beside {name}", others[0][:100])
        parsed = _parsed(row[name], task)
        ignored = TARGET not in row or rule["properties"][TARGET] == IGNORED
        return parsed if ignored else _with_target(parsed, _text(row[TARGET], TARGET), task)
    fields = row.keys() - {"body", "data"}
    # `curl -d` sends everything as a form: TorchServe splits it at & and = and decodes +, and it cannot be restored.
    if not {name.partition(".")[0] for name in fields} & rule["properties"].keys():
        what = f"the form has none of the fields {names(rule['properties'])}" if fields else "the request is empty"
        raise Problem(f"{what}; JSON needs the header Content-Type: application/json, which curl -d does not set")
    return _form(row, rule)


def _with_target(parsed: Any, target: Any, task: str) -> dict[str, Any]:
    if isinstance(parsed, str) and PLAIN[task]:
        parsed = {PLAIN[task]: parsed}
    if not isinstance(parsed, dict) or TARGET in parsed or "instances" in parsed or "inputs" in parsed:
        raise Problem("a target can stand only beside one input without its own", TARGET)
    return {**parsed, TARGET: target}


def _form(row: dict[str, Any], rule: dict[str, Any]) -> dict[str, Any]:
    """The fields of a form (curl -F text=...). `parameters.top_k` is the field top_k of the object in parameters."""
    properties = rule["properties"]
    whole = {name: _typed(_text(text, name), properties.get(name, {}), name) for name, text in row.items()}
    fields = {name: field for name, field in whole.items() if name in properties or "." not in name}
    for name in sorted(whole.keys() - fields.keys()):
        outer, _, inner = name.partition(".")
        inside = properties.get(outer, {}).get("properties")
        if inside is None:
            fields[name] = whole[name]  # an unknown field, which is an error by its name
            continue
        nested = fields.get(outer, {})
        if not isinstance(nested, dict):
            raise Problem("expected an object", outer)
        fields[outer] = {**nested, inner: _typed(whole[name], inside.get(inner, {}), name)}
    return fields


_OPENED = {"{": "object", "[": "array"}
_NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,3})?")


def _typed(text: Any, rule: dict[str, Any], name: str) -> Any:
    """A form field's text as a value of the type that its rule wants; unchanged if it is not one."""
    if not isinstance(text, str):
        return text
    kinds = {one.get("type") for one in rule.get("anyOf", (rule,))}
    stripped = text.strip()
    if _OPENED.get(stripped[:1], "") in kinds:
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            if "string" not in kinds:
                raise Problem(f"the field is not JSON: {error}", name) from None
    elif "string" in kinds:
        return text
    elif kinds & {"integer", "number"} and _NUMBER.fullmatch(stripped):
        return json.loads(stripped)
    elif "boolean" in kinds and stripped.lower() in ("true", "false"):
        return stripped.lower() == "true"
    return text


def _text(value: Any, name: str = "") -> Any:
    if isinstance(value, (bytes, bytearray, memoryview)):
        try:
            return bytes(value).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise Problem(f"byte {error.start} is not UTF-8", name) from None
    return value


_BEGUN = re.compile(r"""\s*(\[\s*\{|[\[{]\s*["'])""")
"""The beginning of JSON, unlikely in plain text: a list of objects, or a bracket and a quotation mark."""

_TUPLE = re.compile(r'("target"\s*:\s*)\(([0-9,\s]*)\)')
"""A target as TorchServe's example for transformers writes it for token classification, which is not JSON: (1,2)."""


def _parsed(body: Any, task: str) -> Any:
    """The JSON value of a body: one that TorchServe has parsed already (by the Content-Type), or JSON or plain text as
    bytes or string. A body that begins with a bracket but not like JSON is plain text, if the task accepts that."""
    if not isinstance(body, (bytes, bytearray, memoryview, str)):
        return body
    text = _text(body)
    if not text.strip():
        raise Problem("the request is empty")
    start = text.lstrip()[0]
    if start in "{[" or (start == '"' and not isinstance(body, str)):
        try:
            return _json(text)
        except RecursionError as error:
            raise Problem(f"the body is not JSON: {error}") from None
        except ValueError as error:
            if PLAIN[task] is None or _BEGUN.match(text):
                raise Problem(f"the body is not JSON: {error}") from None
    return text


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        written = _TUPLE.sub(r"\1[\2]", text)
        if written == text:
            raise
        return json.loads(written)
