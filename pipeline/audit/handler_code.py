"""Checks an archive's Python files: the handler's entry point, code that is not valid, and whose code it is."""

from __future__ import annotations

import json
from typing import Any

from ..archive.findings import SHOWN, Finding, Findings
from ..archive.reader import MANIFEST, PROVENANCE
from ..portable.handler import BUILT_IN
from . import entry_point, kinds, released
from .survey import Survey


def findings(manifest: dict[str, Any], read: Survey) -> Findings:
    """Findings on an archive's handler, and on all code in it."""
    yield from _handler(manifest, read)
    own = _of_the_model(read)
    yield from _own_code(own, read)
    yield from _foreign(own, read)


def _handler(manifest: dict[str, Any], read: Survey) -> Findings:
    model = manifest["model"]
    named = model.get("handler")
    for path in sorted(path for path in read.files if path.endswith(".py")):
        source = read.text(path)
        try:
            if source is None:
                raise SyntaxError("it is not UTF-8, or too large")
            entry_point.Module(source)
        except SyntaxError as error:
            line = f" (line {error.lineno})" if error.lineno else ""
            yield Finding("error", path, f"is not valid Python: {error.msg}{line}; importing it fails", "Fix the file.")
    if isinstance(named, (dict, list)):
        return  # an error of the manifest
    if not isinstance(named, str) or not named:
        what = "does not name a handler: TorchServe uses its default one"
        yield Finding("warning", MANIFEST, what, "Pack one: torch-model-archiver --handler FILE.")
        return
    if manifest.get("runtime") == "LSP":
        return
    name, _, function = named.partition(":")
    module = name.removesuffix(".py").rpartition("/")[2].replace(".", "/")
    file = next((path for path in (f"{module}.py", f"{module}/__init__.py") if path in read.files), None)
    if file is None:
        if module not in BUILT_IN and read.whole and f"{module}.py" not in read.damaged:
            what = f"names the handler {named}, which is neither in the archive nor built into TorchServe"
            yield Finding("error", MANIFEST, what, "Pack its file at the archive's root.")
    else:
        yield from _entry(file, function or None, read)
    model_file = model.get("modelFile")
    code = _module(read, model_file) if isinstance(model_file, str) else None
    if code and len(code.classes) != 1:
        what = f"defines {len(code.classes)} classes: TorchServe's built-in handlers expect exactly one, the model"
        yield Finding("warning", str(model_file), what, "Keep one, and import the others from another file.")


def _entry(path: str, function: str | None, read: Survey) -> Findings:
    code = _module(read, path)
    for wrong in code.entry(function) if code else ():
        level: Any = "warning" if "instead" in wrong else "error"
        yield Finding(
            level, path, wrong, "Keep one class with initialize and handle, or one function handle(data, context)."
        )


def _module(read: Survey, path: str) -> entry_point.Module | None:
    try:
        return entry_point.Module(read.text(path) or "") if path in read.contents else None
    except SyntaxError:
        return None


def _of_the_model(read: Survey) -> list[str]:
    """Python files of the model repository that the build was allowed to run (remote_code)."""
    try:
        named = json.loads(read.text(PROVENANCE) or "")["source"]["remote_code"]
        return [str(path) for path in named if str(path) in read.files]
    except (ValueError, KeyError, TypeError, RecursionError):
        return []


def _own_code(packed: list[str], read: Survey) -> Findings:
    if packed:
        when = (
            "which ran when it was traced"
            if "graph.json" in read.files
            else "which the server runs when it loads the model"
        )
        what = f"has code that came with the model, {when}: {', '.join(packed)}"
        yield Finding("note", "", what, "mar inspect shows where the model came from.")


def _foreign(own: list[str], read: Survey) -> Findings:
    """Every program that is not, byte for byte, a handler of a released version of this package."""
    paths = [
        path
        for path, file in read.files.items()
        if (path.lower().endswith(kinds.SOURCES) or file.start.startswith(b"#!"))
        and path not in own
        and not released.is_released(path, file.sha256)
    ]
    what = "is not, byte for byte, a handler of a released mar-pipeline: it runs with the server's rights, unexamined"
    do = "Read it, or use the archive only if you trust who made it (mar check --key)."
    for path in paths[:SHOWN]:
        yield Finding("note", path, what, do)
    if rest := paths[SHOWN:]:
        yield Finding("note", "", f"has {len(rest)} more programs of this kind: {', '.join(rest)}", do)
