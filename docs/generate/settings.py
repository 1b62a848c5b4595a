"""docs/reference/settings.md and configs/schema.json, from the models that configs are read with."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from . import markdown, project

URL = "https://raw.githubusercontent.com/mar-pipeline/mar-pipeline/main/configs/schema.json"

_SECTIONS = {
    "": "At the top of the file",
    "handler": "handler",
    "handler.generation": "handler.generation",
    "hardware": "hardware",
    "archive": "archive",
    "verify": "verify",
    "pt2": "pt2",
    "pt2.compile": "pt2.compile",
    "torchrun": "torchrun",
}
"""Dotted name of each section -> its heading, in the page's order."""


def page() -> str:
    """The settings, a table for each section."""
    owners = sections()
    if owners.keys() != _SECTIONS.keys():
        raise ValueError(f"sections without a heading: {owners.keys() ^ _SECTIONS.keys()}")
    texts, schema = descriptions(), json_schema()
    return "\n\n".join(_section(name, owners[name], texts, schema) for name in _SECTIONS)


def sections() -> dict[str, type[BaseModel]]:
    """Every section by its dotted name, from the whole file ("") on."""
    return dict(_sections("", project.config.ConfigFile))


def _sections(prefix: str, owner: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
    yield prefix, owner
    for name, field in owner.model_fields.items():
        if inner := _model(field):
            yield from _sections(_dotted(prefix, field.alias or name), inner)


def _dotted(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name


def _model(field: FieldInfo) -> type[BaseModel] | None:
    """The section that a field holds."""
    for kind in (field.annotation, *get_args(field.annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


def descriptions() -> dict[str, str]:
    """Dotted key -> its field's docstring, on one line. Raises ValueError for a field without one."""
    texts: dict[str, str] = {}
    for prefix, owner in sections().items():
        own = {name: text for base in reversed(_ours(owner)) for name, text in markdown.comments(base).items()}
        for name, field in owner.model_fields.items():
            key = _dotted(prefix, field.alias or name)
            if name not in own:
                raise ValueError(f"{key} has no docstring in pipeline/config")
            texts[key] = own[name]
    return texts


def _ours(owner: type[BaseModel]) -> list[type]:
    return [base for base in owner.__mro__ if issubclass(base, BaseModel) and base is not BaseModel]


def _section(prefix: str, owner: type[BaseModel], texts: dict[str, str], schema: dict[str, Any]) -> str:
    rows = []
    for name, field in owner.model_fields.items():
        key = _dotted(prefix, field.alias or name)
        if _model(field) is None:
            rows.append([f"`{key}`", kind(_at(schema, key)), _default(field), texts[key]])
    intro = texts.get(prefix, "TorchServe's own settings of the model.")
    heading = _SECTIONS[prefix] if not prefix else f"`{prefix}`"
    table = markdown.table(["key", "type", "default", "meaning"], rows) if rows else ""
    return f"## {heading}\n\n{intro}\n\n{table}".strip()


def _default(field: FieldInfo) -> str:
    if field.default in (None, PydanticUndefined, ""):
        return ""
    return f"`{json.dumps(field.default)}`"


def _at(schema: dict[str, Any], key: str) -> dict[str, Any]:
    """The part of the schema for one key."""
    part = schema
    for name in key.split("."):
        part = _resolved(schema, part)["properties"][name]
    return part


def _resolved(schema: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    for one in (part, *part.get("anyOf", ()), *part.get("allOf", ())):
        if "$ref" in one:
            return dict(schema["$defs"][one["$ref"].rpartition("/")[2]])
    return part


def kind(part: dict[str, Any]) -> str:
    """A type of JSON Schema in a few words."""
    if "anyOf" in part or "oneOf" in part:
        kinds = [
            kind(one) for one in part.get("anyOf") or part["oneOf"] if one.get("type") != "null" and one != _NUMBER
        ]
        return ", or ".join(dict.fromkeys(kinds))
    if "enum" in part:
        return ", ".join(f"`{value}`" for value in part["enum"])
    if part.get("type") == "array":
        inner = kind(part["items"]) if part.get("items") else ""
        return f"list of {inner}" if inner else "list"
    names = {"string": "text", "boolean": "true or false", "object": "mapping"}
    name = names.get(part.get("type", ""), part.get("type", "any value"))
    low, above, high = part.get("minimum"), part.get("exclusiveMinimum"), part.get("maximum")
    limits = [f"from {low}"] if low is not None else [f"above {above}"] if above is not None else []
    if high is not None and high < project.values.LARGEST:
        limits.append(f"to {high}")
    return " ".join([name, *limits])


def json_schema() -> dict[str, Any]:
    """The schema of a config file, for editors: pydantic's, with the fields' docstrings and the validators' rules."""
    schema = project.config.ConfigFile.model_json_schema(by_alias=True)
    names = {owner.__name__: prefix for prefix, owner in sections().items() if prefix}
    texts = descriptions()
    parts = [("", schema), *((names[name], part) for name, part in schema["$defs"].items() if name in names)]
    for prefix, part in parts:
        for name, field in part["properties"].items():
            field.pop("title", None)
            field["description"] = texts[_dotted(prefix, name)]
    _widen(schema["$defs"])
    schema = dict(_keywords(schema))
    schema.pop("title", None)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": URL,
        "title": "A mar-pipeline config",
        **schema,
        "description": "A TorchServe model-config.yaml with the settings of a build.",
    }


def _widen(parts: dict[str, Any]) -> None:
    """Add what validators check or accept, which pydantic's schema lacks."""
    handler, hardware = parts["HandlerSettings"]["properties"], parts["HardwareSettings"]["properties"]
    words = list(dict.fromkeys((*project.MODES, *project.TASKS)))
    for name in ("mode", "task"):
        handler[name]["anyOf"][0] = {"enum": words}
    handler["hardware"] |= {"enum": list(project.values.HARDWARE)}
    handler["labels"]["anyOf"].append({"type": "array", "items": {"type": "string"}, "minItems": 1})
    hardware["compiler_args"]["anyOf"].append({"type": "string"})
    samples = {"anyOf": [{"type": "string", "pattern": r"\S"}, {"type": "object", "minProperties": 1}]}
    parts["VerifySettings"]["properties"]["samples"]["anyOf"][0] |= {"items": samples, "minItems": 1}


_NUMBER = {"type": "string", "pattern": r"^[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$"}
"""YAML 1.1 readers make text of 1e-4, so a quoted number is a number."""


def _keywords(part: Any) -> Any:
    """The schema with JSON Schema's keywords for pydantic's limits, and with text for numbers that may be quoted."""
    if isinstance(part, list):
        return [_keywords(one) for one in part]
    if not isinstance(part, dict):
        return part
    renamed = {"gt": "exclusiveMinimum", "ge": "minimum", "lt": "exclusiveMaximum", "le": "maximum"}
    result = {renamed.get(name, name): _keywords(value) for name, value in part.items()}
    if any(one.get("type") == "number" for one in result.get("anyOf", ())):
        result["anyOf"] = [*result["anyOf"], _NUMBER]
    return result
