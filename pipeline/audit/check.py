"""Checks a finished archive: against its own record, against TorchServe's rules, and for harmful contents.

An error: the archive does not load, is served with other settings than it states, is not what was built, runs code that
is not a handler's, or is not pinned. A warning: it loads, but something in it has no effect. A note: something cannot
be checked. The record (provenance.json) itself is not verified: whoever changes a file can change the record too, and
only a signature protects against that.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from ..archive.findings import SHOWN, Finding, Findings
from ..archive.members import Refused
from ..archive.reader import DAMAGE, MANIFEST, PROVENANCE, Archive
from ..files import pointers
from ..model.checkpoint import VOCABULARIES
from ..portable.handler import BUILT_IN
from ..text import printable, some
from . import entry_point, layout, pickles, server_rules
from .survey import Survey, survey

_OURS = (PROVENANCE, MANIFEST)

# Tokenizers without a vocabulary file: their tokens are bytes or characters.
_NO_VOCABULARY = ("ByT5Tokenizer", "CanineTokenizer", "PerceiverTokenizer")

_LEVELS = ("error", "warning", "note")
_GET_AGAIN = "Build it again, or copy it again from where it was built."


def check(path: Path) -> dict[str, Any]:
    """The findings of an archive, errors first, and how many of its files match the record.

    For an archive that is refused, since it can be read in two ways, the reasons are the only findings. Raises
    InputError for a file that is not an archive at all.
    """
    try:
        archive = Archive(path)
    except Refused as refused:
        return _result(path, path.name.partition(".")[0], Survey(), list(refused.findings))
    read = survey(archive)
    findings = [
        *_damage(read),
        *_pointers(read),
        *layout.findings(archive),
        *_record(read),
        *server_rules.manifest(archive.manifest, read),
        *_handler(archive.manifest, read),
        *_settings(archive.manifest, read),
        *_pickled(archive, read),
        *_tokenizer(read),
        *_own_code(read),
    ]
    return _result(path, archive.name, read, findings)


def _result(path: Path, name: str, read: Survey, findings: list[Finding]) -> dict[str, Any]:
    findings.sort(key=lambda finding: _LEVELS.index(finding.level))
    recorded = _digests(read) or {}
    counts = {f"{level}s": sum(finding.level == level for finding in findings) for level in _LEVELS}
    return {
        "path": str(path),
        "name": name,
        "ok": not counts["errors"],
        "files": len(read.files),
        "recorded": len(recorded),
        "intact": sum(read.files[path].sha256 == sha for path, sha in recorded.items() if path in read.files),
        **counts,
        "findings": [asdict(finding) for finding in findings],
    }


def show(result: dict[str, Any]) -> str:
    """The result of `check` as text: one or two lines for each finding, and a summary."""
    lines = []
    for finding in result["findings"]:
        about = f"{finding['where']} " if finding["where"] else "The archive "
        if finding["where"] and finding["what"].startswith("line "):
            about = f"{finding['where']}, "
        end = "" if finding["what"].endswith((".", "?")) else "."
        lines.append(printable(f"{finding['level']}: {about}{finding['what']}{end}"))
        lines += [printable(f"{' ' * len(finding['level'])}  {finding['do']}")] if finding["do"] else []
    counts = ", ".join(
        f"{result[level]} {level if result[level] != 1 else level[:-1]}" for level in ("errors", "warnings", "notes")
    )
    intact = f", {result['intact']} of {result['recorded']} recorded ones unchanged" if result["recorded"] else ""
    lines.append(printable(f"{result['name']}: {result['files']} files{intact}; {counts}"))
    return "\n".join(lines)


def _damage(read: Survey) -> Findings:
    for path, why in read.damaged.items():
        rest = "" if read.whole else "; what follows could not be read"
        yield Finding("error", path, f"is damaged: {why}{rest}", _GET_AGAIN)


def _record(read: Survey) -> Findings:
    if PROVENANCE not in read.files and PROVENANCE not in read.damaged:
        if read.whole:
            yield Finding(
                "note",
                "",
                f"has no {PROVENANCE}, so whether its files are those that were packed cannot be checked.",
                "mar build writes one.",
            )
        return
    recorded = _digests(read)
    if recorded is None:
        if PROVENANCE not in read.damaged:
            what = "is not a record of this program: it does not list files with their SHA-256"
            yield Finding("error", PROVENANCE, what, "Build the archive again.")
        return
    changed = [path for path, sha in recorded.items() if path in read.files and read.files[path].sha256 != sha]
    missing = [path for path in recorded if read.whole and path not in read.files and path not in read.damaged]
    more = [path for path in read.files if path not in recorded and path not in _OURS]
    for path in changed[:SHOWN]:
        sha = read.files[path].sha256
        what = f"is not the file that was built: its SHA-256 is {sha[:12]}.., recorded is {recorded[path][:12]}.."
        yield Finding("error", path, what, _GET_AGAIN)
    for path in missing[:SHOWN]:
        yield Finding(
            "error", path, "was built and is missing: the model fails to load, or runs without it", _GET_AGAIN
        )
    for path in more[:SHOWN]:
        what = f"is not in the record ({PROVENANCE}): it was added after the build, and the server may run it"
        yield Finding("error", path, what, "Build the archive again, with the file if it is intended.")
    if (rest := sum(max(0, len(paths) - SHOWN) for paths in (changed, missing, more))) > 0:
        yield Finding("error", "", f"has {rest} more files that do not match the record", _GET_AGAIN)


def _digests(read: Survey) -> dict[str, str] | None:
    """The recorded SHA-256 by path, None if the record is missing or malformed."""
    try:
        files = json.loads(read.text(PROVENANCE) or "")["files"]
        return {str(path): str(sha) for path, sha in files.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


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


def _settings(manifest: dict[str, Any], read: Survey) -> Findings:
    model = manifest["model"]
    for key, rules in (("configFile", server_rules.settings), ("requirementsFile", server_rules.requirements)):
        named = model.get(key)
        if isinstance(named, str) and named in read.files:
            yield from rules(named, read.text(named))


def _pickled(archive: Archive, read: Survey) -> Findings:
    for path, file in read.files.items():
        pickled = file.pickled
        if file.start.startswith(b"PK\3\4"):
            try:
                with archive.open(path) as stream:
                    pickled = pickles.look_in_zip(stream)
            except (*DAMAGE, KeyError):
                what = "begins like a zip file but is not one: torch.load and torch.jit.load refuse it"
                yield Finding("warning", path, what, "Save it again.")
                continue
        if pickled is None:
            continue
        if pickled.harmful:
            calls = some(list(pickled.harmful))
            what = f"is {pickled.kind} that calls {calls} when it is loaded: a model does not need that"
            yield Finding("error", path, what, "Do not load it; find out where it comes from.")
        else:
            names = f" (it names {some(list(pickled.names))})" if pickled.names else ""
            what = f"is {pickled.kind}{names}: loading it may run any code, with the server's rights"
            yield Finding("error", path, what, "Save weights as safetensors.")


def _pointers(read: Survey) -> Findings:
    """Git LFS pointers in place of files, such as weights."""
    for path, file in read.files.items():
        if pointers.is_pointer(file.start):
            what = "is a Git LFS pointer, and not the file itself: the worker dies while it loads"
            yield Finding("error", path, what, "Run `git lfs pull` where the archive was made, and make it again.")


def _own_code(read: Survey) -> Findings:
    """Python code of the model repository that the build was allowed to run (remote_code)."""
    try:
        named = [str(path) for path in json.loads(read.text(PROVENANCE) or "")["source"]["remote_code"]]
    except (ValueError, KeyError, TypeError, RecursionError):
        return
    if packed := [path for path in named if path in read.files]:
        when = (
            "which ran when it was traced"
            if "graph.json" in read.files
            else "which the server runs when it loads the model"
        )
        what = f"has code that came with the model, {when}: {some(packed)}"
        yield Finding("note", "", what, "mar inspect shows where the model came from.")


def _tokenizer(read: Survey) -> Findings:
    """A warning for a transformers model without a tokenizer or image processor."""
    names = {path.rpartition("/")[2] for path in read.files}
    if "preprocessor_config.json" in names or any(fnmatch(name, kind) for name in names for kind in VOCABULARIES):
        return
    configs = [path for path in read.contents if re.fullmatch(r"(.*/)?config\.json", path)]
    if not any(re.search(r'"(model_type|architectures)"', read.text(path) or "") for path in configs):
        return
    own = "".join(read.text(path) or "" for path in read.contents if path.endswith("tokenizer_config.json"))
    if read.whole and not any(name in own for name in _NO_VOCABULARY):
        yield Finding(
            "warning",
            "",
            "has a transformers model but no tokenizer: its handler downloads one when it loads, or fails",
            "Pack the tokenizer's files beside config.json; mar build does.",
        )
