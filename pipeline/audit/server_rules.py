"""TorchServe's rules for an archive's manifest, settings and requirements, and what it ignores silently."""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from typing import Any

from pydantic import ValidationError

from ..archive.findings import Finding, Findings, Level
from ..config import messages
from ..config.frontend import Frontend
from ..files import yaml
from ..files.yaml import Where
from ..serving.properties import MODEL_NAME
from ..text import shown
from .survey import Survey

_RUNTIMES = ("python", "python3", "LSP")

# The manifest's entries that name a file, other than the handler.
FILES = ("serializedFile", "modelFile", "configFile", "requirementsFile")

# Fields of Manifest.java that are a String and that no other rule is about: Gson refuses lists and objects for them.
_TEXTS = ("createdOn", "description", "archiverVersion")
_TEXTS_OF_THE_MODEL = ("modelVersion", "description", "handler", "envelope")

# Out of range, ModelConfig.java silently replaces these by its smallest or largest value.
_CLAMPED = ("minWorkers", "maxWorkers", "batchSize", "maxSequenceJobQueueSize", "maxNumSequence")

_BUILD_ONLY = ("archive", "verify")  # sections of a build's config that are not in an archive
_IGNORED = "TorchServe ignores unknown keys silently"


def manifest(content: Mapping[str, Any], files: Survey) -> Findings:
    """Findings on MANIFEST.json, except for its handler."""
    where, model = "MAR-INF/MANIFEST.json", content["model"]
    name = model.get("modelName")
    if not isinstance(name, str) or not MODEL_NAME.fullmatch(name):
        yield Finding(
            "error",
            where,
            f"modelName is {shown(name)}: TorchServe could not build a URL from it",
            "Use only letters, digits and _ - . in it, starting with a letter or a digit.",
        )
    for inner, keys in ((content, _TEXTS), (model, _TEXTS_OF_THE_MODEL)):
        for key in keys:
            if isinstance(inner.get(key), dict | list):
                what = f"{key} is {shown(inner[key])}, and not a text: TorchServe cannot read the manifest"
                yield Finding("error", where, what, "Make the archive again with torch-model-archiver.")
    if "runtime" in content and content["runtime"] not in _RUNTIMES:
        yield Finding(
            "error",
            where,
            f"runtime is {shown(content['runtime'])}, which TorchServe refuses"
            + messages.meant(content["runtime"], _RUNTIMES),
            f"Use one of {', '.join(_RUNTIMES)}.",
        )
    for key in FILES:
        named = model.get(key)
        there = isinstance(named, str) and (named in files.files or named in files.damaged)
        if named is not None and not there and files.whole:
            yield Finding(
                "error",
                where,
                f"{key} is {shown(named)}, and there is no such file: the model does not load",
                "Pack the file, or build the archive without the entry.",
            )
    if not model.get("modelVersion"):
        yield Finding("note", where, "has no modelVersion: TorchServe calls it 1.0.", "")
    if model.get("configFile") is None and "model-config.yaml" in files.files:
        yield Finding(
            "warning",
            "model-config.yaml",
            "is in the archive, but the manifest has no configFile: neither the server nor the handler reads it",
            "Pack it with torch-model-archiver --config-file.",
        )


def settings(where: str, text: str | None) -> Findings:
    """Findings on an archive's model-config.yaml."""
    if text is None:
        yield Finding("error", where, "is not UTF-8, or too large for settings", "Write it again.")
        return
    document = yaml.parse(text)
    for problem in document.problems[:5]:
        key = messages.dotted(problem.where)
        # Invalid YAML is not read at all; with other problems, readers disagree on the value.
        level: Level = "error" if document.data is None or not problem.where else "warning"
        what = f"line {problem.line}: {key}{': ' if key else ''}{problem.message}"
        yield Finding(
            level, where, what, "TorchServe and the handler would read different values, or fail to read the file."
        )
    data = document.data
    if not isinstance(data, dict):
        if not document.problems:
            what = "is empty" if data is None else f"is {shown(data)}, not 'key: value' lines"
            yield Finding(
                "error",
                where,
                f"{what}, which TorchServe cannot read",
                "Add settings, or build the archive without --config-file (of torch-model-archiver).",
            )
        return
    known = messages.keys_of(Frontend)
    for key, value in data.items():
        if key not in known:
            yield from _unknown(where, key, value, list(known))
    yield from _frontend(where, {key: value for key, value in data.items() if key in known}, document.quoted)


def _unknown(where: str, key: str, value: Any, known: list[str]) -> Findings:
    alike = {name.lower(): name for name in known}
    # A mapping belongs to the handler, unless its key is one of the server's in a different case.
    if isinstance(value, dict) and key.lower() not in alike:
        return
    hint = messages.meant_key((key,))
    if hint.startswith(tuple(f"; did you mean {section}." for section in _BUILD_ONLY)):
        hint = ""
    yield Finding(
        "error" if hint else "warning",
        where,
        f"{messages.dotted((key,))} is not a key of the server: {_IGNORED}{hint}",
        "Correct it; if it is for the handler, put it under `handler:`.",
    )


def _frontend(where: str, values: dict[str, Any], quoted: Container[Where]) -> Findings:
    try:
        Frontend.model_validate(values)
    except ValidationError as error:
        for path, message in messages.of(error, quoted):
            key = messages.dotted(path)
            if "unknown key" in message:
                yield Finding("error", where, f"{key}: {message}; {_IGNORED}", "Correct it.")
            elif path[0] in _CLAMPED and "out of range" in message:
                yield Finding("error", where, f"{key}: {message}; TorchServe uses a different value", "Correct it.")
            else:
                what = f"{key}: {message}; TorchServe rejects it with a line in its log, and serves without it"
                yield Finding("error", where, what, "Correct it in the config, and build again.")
    least, most = (number if isinstance(number := values.get(key), int) else 0 for key in ("minWorkers", "maxWorkers"))
    if least > most:
        what = f"minWorkers is {least}, maxWorkers {most or 'is not set'}: TorchServe ignores both"
        yield Finding("error" if most else "warning", where, what, "Set both, maxWorkers at least as large.")


def requirements(where: str, text: str | None) -> Findings:
    """Findings on a requirements file: lines that do not pin one exact package."""
    if text is None:
        yield Finding("error", where, "is not UTF-8, or too large for requirements", "Write it again.")
        return
    loose = [line for line in _logical_lines(text) if not _pinned(line)]
    for line in loose[:5]:
        yield Finding(
            "error",
            where,
            f"{line[:80]!r} is not pinned: the server may install a different version each time",
            "Write name==version, or a URL with #sha256=...",
        )
    if len(loose) > 5:
        yield Finding("error", where, f"{len(loose) - 5} more lines are not pinned", "Pin them as well.")
    yield Finding(
        "note",
        where,
        "is installed at load, and only if the server's config.properties has install_py_dep_per_model=true.",
    )


def _logical_lines(text: str) -> list[str]:
    joined = re.sub(r"\\\r?\n", " ", text)
    lines = (re.sub(r"(^|\s)#.*", "", line).strip() for line in joined.splitlines())
    return [line for line in lines if line and not re.match(r"--(no-|only-|prefer-|require-|pre\b|use-)", line)]


def _pinned(line: str) -> bool:
    from packaging.requirements import InvalidRequirement, Requirement

    exact_url = re.search(r"[#&](sha256|sha384|sha512)=[0-9a-fA-F]{64,}", line) is not None
    text = re.split(r"\s--", line)[0].strip()
    try:
        requirement = Requirement(text)
    except InvalidRequirement:
        # A bare URL, or an option such as -r, -e or --index-url, which may install anything.
        return exact_url and not line.startswith("-")
    if requirement.url is not None:
        return exact_url
    # One exact version is enough, whatever other specifiers there are.
    return any(
        one.operator == "===" or (one.operator == "==" and not one.version.endswith(".*"))
        for one in requirement.specifier
    )
