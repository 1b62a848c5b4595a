"""Messages for the problems of a config: one line each, with the key and a did-you-mean."""

from __future__ import annotations

import json
import re
from collections.abc import Container, Iterable, Sequence
from functools import lru_cache
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from ..files import yaml
from ..files.yaml import Where
from ..tasks import TASKS
from ..text import near, shown
from .settings import ConfigFile
from .values import LARGEST

_TYPES = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "a text",
    "list": "a list",
    "dict": "a section (key: value lines)",
    "model": "a section (key: value lines)",
}
_BOUNDS = {
    "greater_than_equal": ("ge", "at least"),
    "greater_than": ("gt", "more than"),
    "less_than_equal": ("le", "at most"),
    "less_than": ("lt", "less than"),
}
_LIKE = 0.65
"""difflib's cutoff for suggestions."""
# Words of related tools that are not spelled like ours.
_SYNONYMS = {
    "batch_size": "batchSize",
    "model": "handler.model_name",
    "model_id": "handler.model_name",
    "fp16": "float16",
    "half": "float16",
    "fp32": "float32",
    "float": "float32",
    "bf16": "bfloat16",
    "jit": "torchscript",
    "eager": "pretrained",
    "cuda": "gpu",
    "zip": "zip-store",
    "inf1": "neuron",
    "inf2": "neuronx",
    **{alias: task.mode for task in TASKS.values() for alias in task.aliases},
}


def dotted(where: Where) -> str:
    """`("handler", "labels", 0)` as `handler.labels[0]`; always one line, with odd keys quoted."""
    text = ""
    for part in where:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            # Quotes show leading and trailing blanks.
            clean = part if part.isprintable() and part == part.strip() != "" else json.dumps(part)
            text += ("." if text else "") + clean[:60]
    return text


def of(error: ValidationError, quoted: Container[Where]) -> list[tuple[Where, str]]:
    """pydantic's errors: for each the path of the key, and a message. `quoted` has the paths of values in quotes."""
    details = error.errors(include_url=False)
    return [(where, _message(detail, where, where in quoted)) for detail in details for where in [_where(detail)]]


def _where(detail: ErrorDetails) -> Where:
    # Without pydantic's markers for a mapping's key and for the member of a union (the tags in values.Lengths).
    return tuple(part for part in detail["loc"] if part not in ("[key]", "[one]", "[some]"))


def _message(detail: ErrorDetails, where: Where, quoted: bool) -> str:
    kind, value, context = detail["type"], detail["input"], detail.get("ctx", {})
    if kind == "mar":
        return str(context["message"])
    if kind == "extra_forbidden":
        return "unknown key" + meant_key(where)
    if kind in ("choice", "literal_error"):
        choices = context.get("choices") or re.findall(r"'([^']*)'", context.get("expected", ""))
        return f"{shown(value)} is not one of {_listed(choices)}{meant(value, choices)}"
    if kind in _BOUNDS:
        key, words = _BOUNDS[kind]
        bound = context[key]
        largest = " (TorchServe's largest)" if bound == LARGEST else ""
        return f"{shown(value)} is out of range: {words} {_plain(bound)}{largest}"
    if kind == "finite_number":
        return f"{shown(value)} is not a finite number"
    if kind in ("string_too_short", "too_short"):
        return "is empty"
    if kind in ("string_too_long", "too_long"):
        return f"has {len(value)} characters, and may have {context.get('max_length')}"
    if kind == "string_pattern_mismatch":
        return f"{shown(value)}: {_pattern(where)}"
    wanted = kind.partition("_")[0]
    if wanted not in _TYPES:
        return f"{shown(value)} is not a valid value"
    return f"expected {_TYPES[wanted]}, got {shown(value)}{_unquote(wanted, value, quoted)}"


def _pattern(where: Where) -> str:
    if where[-1] in ("revision", "base_revision"):
        return "a branch, tag or commit has 1 to 200 characters, none of them a blank"
    more = " +" if where[-1] == "version" else ""
    return f"letters, digits and _ - .{more} only, with a letter or a digit first"


def _unquote(wanted: str, value: Any, quoted: bool) -> str:
    """A hint for the most common wrong types: a number or a boolean in quotes, a number with a leading zero."""
    if not isinstance(value, str):
        return ""
    zeros = re.fullmatch(r"([-+]?)0+(\d+)", value)
    if zeros and wanted == "int":
        other = int(value, 8) if re.fullmatch(r"[-+]?[0-7]+", value) else int(value)
        octal = f", or {other} if it is octal" if other != int(value) else ""
        return f"; write {zeros[1]}{zeros[2]}, without a 0 in front{' and without quotes' if quoted else octal}"
    kinds = {"int": (int,), "float": (int, float), "bool": (bool,)}
    # As the file's reader has it without quotes.
    fits = type(yaml.parse(value).data) in kinds.get(wanted, ())
    return "; leave the quotes out" if quoted and fits else ""


def _plain(number: Any) -> str:
    return f"{number:g}" if isinstance(number, float) else str(number)


def _listed(choices: Sequence[str]) -> str:
    return ", ".join(choices[:-1]) + f" or {choices[-1]}" if len(choices) > 1 else choices[0]


def meant(value: Any, choices: Iterable[str]) -> str:
    """`; did you mean X?`, or "" if no choice is close to the value."""
    known = list(choices)
    if not isinstance(value, str):
        return ""
    lower = value.lower()
    synonym = _SYNONYMS.get(lower)
    closest = synonym if synonym in known else near(lower, known, _LIKE)
    return f"; did you mean {closest}?" if closest else ""


def meant_key(where: Where) -> str:
    """`; did you mean X?` for an unknown key: the same word in another section, or a close one; "" if there is none."""
    word = str(where[-1])
    own = keys(tuple(str(part) for part in where[:-1]))
    section = "".join(f"{part}." for part in where[:-1])
    elsewhere = {name.rpartition(".")[2]: name for name in reversed(_all_keys())}
    if _SYNONYMS.get(word) in _all_keys():
        return f"; did you mean {_SYNONYMS[word]}?"
    if word in elsewhere:
        top = "" if "." in elsewhere[word] else ", at the top of the file"
        return f"; did you mean {elsewhere[word]}{top}?"
    if name := near(word, own, _LIKE):
        return f"; did you mean {section}{name}?"
    name = near(word, elsewhere, _LIKE)
    return f"; did you mean {elsewhere[name]}?" if name else ""


@lru_cache
def keys(section: tuple[str, ...]) -> dict[str, type[BaseModel] | None]:
    """Key -> its model, or None if it is not a section, for each key of a section; empty for free-form sections."""
    model: type[BaseModel] | None = ConfigFile
    for part in section:
        model = keys_of(model).get(part) if model else None
    return keys_of(model) if model else {}


def keys_of(model: type[BaseModel]) -> dict[str, type[BaseModel] | None]:
    """Key -> its model, or None if it is not a section, for each field of a model; keys as the file spells them."""
    models_by_key: dict[str, type[BaseModel] | None] = {}
    for name, info in model.model_fields.items():
        kinds = (info.annotation, *get_args(info.annotation))
        models = (kind for kind in kinds if get_origin(kind) is None and isinstance(kind, type))
        inner = next((kind for kind in models if issubclass(kind, BaseModel)), None)
        models_by_key[info.alias or name] = inner
    return models_by_key


@lru_cache
def _all_keys() -> tuple[str, ...]:
    """Every key of the file, dotted; the outer ones first."""
    names: list[str] = []
    sections: list[tuple[str, type[BaseModel]]] = [("", ConfigFile)]
    for prefix, model in sections:
        for name, inner in keys_of(model).items():
            names.append(prefix + name)
            if inner is not None:
                sections.append((f"{prefix}{name}.", inner))
    return tuple(names)
