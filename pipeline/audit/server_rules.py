"""What TorchServe asks of an archive's manifest, settings and requirements, and what it passes over in silence."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from ..archive.findings import Finding, Findings, Level
from ..config import messages
from ..config.settings import Frontend
from ..files import yaml
from ..serving.properties import MODEL_NAME
from .survey import Survey

_RUNTIMES = ("python", "python3", "LSP")

# The manifest's entries that name a file, beside its handler.
FILES = ("serializedFile", "modelFile", "configFile", "requirementsFile")

# ModelConfig.java takes the least or the largest value that it knows instead of these, without a word.
_CLAMPED = ("minWorkers", "maxWorkers", "batchSize", "maxSequenceJobQueueSize", "maxNumSequence")

_KEPT_OUT = ("archive", "verify")  # sections of a build's config that an archive has not
_IGNORED = "TorchServe drops unknown keys without a word"


def manifest(found: Mapping[str, Any], files: Survey) -> Findings:
    """What is wrong in MANIFEST.json, but for its handler."""
    where, model = "MAR-INF/MANIFEST.json", found["model"]
    name = model.get("modelName")
    if not isinstance(name, str) or not MODEL_NAME.fullmatch(name):
        yield Finding(
            "error",
            where,
            f"modelName is {messages.shown(name)}: TorchServe's address for it would not be one",
            "Name it with letters, digits and _ - . only, a letter or a digit first.",
        )
    if "runtime" in found and found["runtime"] not in _RUNTIMES:
        yield Finding(
            "error",
            where,
            f"runtime is {messages.shown(found['runtime'])}, which TorchServe refuses"
            + messages.meant(found["runtime"], _RUNTIMES),
            f"It takes {', '.join(_RUNTIMES)}.",
        )
    for key in FILES:
        named = model.get(key)
        there = isinstance(named, str) and (named in files.files or named in files.damaged)
        if named is not None and not there and files.whole:
            yield Finding(
                "error",
                where,
                f"{key} is {messages.shown(named)}, and there is no such file: the model does not load",
                "Pack the file, or make the archive without the entry.",
            )
    if not model.get("modelVersion"):
        yield Finding("note", where, "has no modelVersion: TorchServe calls it 1.0.", "")
    if model.get("configFile") is None and "model-config.yaml" in files.files:
        yield Finding(
            "warning",
            "model-config.yaml",
            "is in the archive, and the manifest names no configFile: neither server nor handler reads it",
            "Pack it with torch-model-archiver --config-file.",
        )


def settings(where: str, text: str | None) -> Findings:
    """What is wrong in an archive's model-config.yaml."""
    if text is None:
        yield Finding("error", where, "is no UTF-8 text, or too large for settings", "Write it again.")
        return
    document = yaml.parse(text)
    for problem in document.problems[:5]:
        key = messages.dotted(problem.where)
        # A text that is no YAML is not read at all; what is only odd is read as the reader likes.
        level: Level = "error" if document.data is None or not problem.where else "warning"
        said = f"line {problem.line}: {key}{': ' if key else ''}{problem.message}"
        yield Finding(level, where, said, "TorchServe and the handler would not agree on it, or not read the file.")
    data = document.data
    if not isinstance(data, dict):
        if not document.problems:
            said = "is empty" if data is None else f"holds {messages.shown(data)}, not 'key: value' lines"
            yield Finding(
                "error", where, f"{said}, which TorchServe cannot read", "Write settings, or leave the file out."
            )
        return
    known = messages.keys_of(Frontend)
    for key, value in data.items():
        if key not in known:
            yield from _unknown(where, key, value, list(known))
    yield from _frontend(where, {key: value for key, value in data.items() if key in known})


def _unknown(where: str, key: str, value: Any, known: list[str]) -> Findings:
    alike = {name.lower(): name for name in known}
    # A mapping, a list of texts for the handler: but not what is a server's key but for its capitals.
    if isinstance(value, dict) and key.lower() not in alike:
        return
    meant = messages.meant_key((key,))
    if meant.startswith(tuple(f"; did you mean {section}." for section in _KEPT_OUT)):
        meant = ""
    yield Finding(
        "error" if meant else "warning",
        where,
        f"{messages.dotted((key,))} is no key of the server's: {_IGNORED}{meant}",
        "Correct it; if it is the handler's own, put it under `handler:`.",
    )


def _frontend(where: str, given: dict[str, Any]) -> Findings:
    try:
        Frontend.model_validate(given)
    except ValidationError as error:
        for path, message in messages.of(error):
            key = messages.dotted(path)
            if "unknown key" in message:
                yield Finding("error", where, f"{key}: {message}; {_IGNORED}", "Correct it.")
            elif path[0] in _CLAMPED and "out of range" in message:
                yield Finding("error", where, f"{key}: {message}; TorchServe takes another value", "Correct it.")
            else:
                said = f"{key}: {message}; TorchServe refuses it with a line in its log, and serves without it"
                yield Finding("error", where, said, "Correct it in the config, and build again.")
    least, most = (number if isinstance(number := given.get(key), int) else 0 for key in ("minWorkers", "maxWorkers"))
    if least > most:
        said = f"minWorkers is {least}, and maxWorkers {most or 'is not given'}: TorchServe ignores them both"
        yield Finding("error" if most else "warning", where, said, "Give both, maxWorkers at least as large.")


def requirements(where: str, text: str | None) -> Findings:
    """Lines of a requirements file that do not name one exact package."""
    if text is None:
        yield Finding("error", where, "is no UTF-8 text, or too large for requirements", "Write it again.")
        return
    loose = [line for line in _logical_lines(text) if not _pinned(line)]
    for line in loose[:5]:
        yield Finding(
            "error",
            where,
            f"{line[:80]!r} is not pinned: the server installs another package tomorrow than today",
            "Write name==version, or a URL with #sha256=...",
        )
    if len(loose) > 5:
        yield Finding("error", where, f"{len(loose) - 5} more lines are not pinned", "Pin them as well.")
    yield Finding(
        "note",
        where,
        "is installed at load, and only where the server's config.properties says install_py_dep_per_model=true.",
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
        wanted = Requirement(text)
    except InvalidRequirement:
        # A bare URL, or an option such as -r, -e or --index-url, by which anything may come.
        return exact_url and not line.startswith("-")
    if wanted.url is not None:
        return exact_url
    # One version that is exact is enough, whatever stands beside it.
    return any(
        one.operator == "===" or (one.operator == "==" and not one.version.endswith(".*")) for one in wanted.specifier
    )
