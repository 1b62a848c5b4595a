"""Holds a finished archive against what is recorded in it, against TorchServe's rules, and looks for what may do harm.

An error: it does not load, serves other settings than it states, is not what was built, runs code that is no handler's,
or may be another one tomorrow. A warning: it loads, and something in it has no effect. A note: what cannot be told. The
record itself (provenance.json) is held against nothing here: whoever changes a file can change that as well, and only a
signature tells.
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
from ..model.checkpoint import VOCABULARIES
from ..text import printable, some
from . import entry_point, layout, pickles, server_rules
from .survey import Survey, survey

_OURS = (PROVENANCE, MANIFEST)

# Handlers that come with TorchServe (ts/torch_handler), which a manifest names without a file.
# fmt: off
_BUILT_IN = (
    "base_handler", "image_classifier", "image_segmenter", "object_detector", "text_classifier", "text_handler",
    "vision_handler", "dali_image_classifier", "dali_handler", "densenet_handler", "vllm_handler", "trt_llm_handler",
)
# fmt: on

# Tokenizers that need no vocabulary: theirs is all bytes or all characters.
_NO_VOCABULARY = ("ByT5Tokenizer", "CanineTokenizer", "PerceiverTokenizer")

_LEVELS = ("error", "warning", "note")
_GET_AGAIN = "Build it again, or copy it again from where it was built."


def check(path: Path) -> dict[str, Any]:
    """What is found in an archive, the worst first, and how many of its files are as recorded.

    One that is refused, since it could be read in two ways, has the reasons as its only findings. Raises InputError for
    what is not an archive at all.
    """
    try:
        archive = Archive(path)
    except Refused as refused:
        return _result(path, path.name.partition(".")[0], Survey(), list(refused.findings))
    read = survey(archive)
    found = [
        *_damage(read),
        *layout.findings(archive),
        *_record(read),
        *server_rules.manifest(archive.manifest, read),
        *_handler(archive.manifest, read),
        *_settings(archive.manifest, read),
        *_pickled(archive, read),
        *_tokenizer(read),
        *_own_code(read),
    ]
    return _result(path, archive.name, read, found)


def _result(path: Path, name: str, read: Survey, found: list[Finding]) -> dict[str, Any]:
    found.sort(key=lambda finding: _LEVELS.index(finding.level))
    told = _digests(read) or {}
    counts = {f"{level}s": sum(finding.level == level for finding in found) for level in _LEVELS}
    return {
        "path": str(path),
        "name": name,
        "ok": not counts["errors"],
        "files": len(read.files),
        "recorded": len(told),
        "intact": sum(read.files[path].sha256 == sha for path, sha in told.items() if path in read.files),
        **counts,
        "findings": [asdict(finding) for finding in found],
    }


def show(found: dict[str, Any]) -> str:
    """`check`'s result as text: a line or two for each finding, and a summary last."""
    lines = []
    for finding in found["findings"]:
        about = f"{finding['where']} " if finding["where"] else "The archive "
        if finding["where"] and finding["what"].startswith("line "):
            about = f"{finding['where']}, "
        end = "" if finding["what"].endswith((".", "?")) else "."
        lines.append(printable(f"{finding['level']}: {about}{finding['what']}{end}"))
        lines += [printable(f"{' ' * len(finding['level'])}  {finding['do']}")] if finding["do"] else []
    told = ", ".join(
        f"{found[level]} {level if found[level] != 1 else level[:-1]}" for level in ("errors", "warnings", "notes")
    )
    kept = f", {found['intact']} of the {found['recorded']} that the record names as built" if found["recorded"] else ""
    lines.append(printable(f"{found['name']}: {found['files']} files{kept}; {told}"))
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
                f"holds no {PROVENANCE}, so its files cannot be held against digests: nothing tells whether they are "
                "those that were packed.",
                "mar build writes one.",
            )
        return
    told = _digests(read)
    if told is None:
        if PROVENANCE not in read.damaged:
            said = "is no record of this program's: it names no files with their SHA-256"
            yield Finding("error", PROVENANCE, said, "Build the archive again.")
        return
    changed = [path for path, sha in told.items() if path in read.files and read.files[path].sha256 != sha]
    missing = [path for path in told if read.whole and path not in read.files and path not in read.damaged]
    more = [path for path in read.files if path not in told and path not in _OURS]
    for path in changed[:SHOWN]:
        found = read.files[path].sha256
        said = f"is not the file that was built: its SHA-256 is {found[:12]}.., and {told[path][:12]}.. is recorded"
        yield Finding("error", path, said, _GET_AGAIN)
    for path in missing[:SHOWN]:
        yield Finding("error", path, "was built and is missing: what needs it will fail, or do without", _GET_AGAIN)
    for path in more[:SHOWN]:
        said = f"is not in the record ({PROVENANCE}): somebody put it in after the build, and the server may run it"
        yield Finding("error", path, said, "Build the archive again, with the file if it is meant.")
    if (rest := sum(max(0, len(paths) - SHOWN) for paths in (changed, missing, more))) > 0:
        yield Finding("error", "", f"has {rest} more files that are not as recorded", _GET_AGAIN)


def _digests(read: Survey) -> dict[str, str] | None:
    """The recorded SHA-256 by path, None if there is no record that can be read."""
    try:
        told = json.loads(read.text(PROVENANCE) or "")["files"]
        return {str(path): str(sha) for path, sha in told.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _handler(manifest: dict[str, Any], read: Survey) -> Findings:
    model = manifest["model"]
    named = model.get("handler")
    for path in sorted(path for path in read.files if path.endswith(".py")):
        source = read.text(path)
        try:
            if source is None:
                raise SyntaxError("it is no UTF-8 text, or too large")
            entry_point.Module(source)
        except SyntaxError as error:
            line = f" (line {error.lineno})" if error.lineno else ""
            yield Finding("error", path, f"is no Python: {error.msg}{line}; importing it fails", "Correct the file.")
    if not isinstance(named, str) or not named:
        said = "names no handler: TorchServe takes its default one"
        yield Finding("warning", MANIFEST, said, "Make the archive with --handler.")
        return
    if manifest.get("runtime") == "LSP":
        return
    name, _, function = named.partition(":")
    module = name.removesuffix(".py").rpartition("/")[2].replace(".", "/")
    file = next((path for path in (f"{module}.py", f"{module}/__init__.py") if path in read.files), None)
    if file is None:
        if module not in _BUILT_IN and read.whole and f"{module}.py" not in read.damaged:
            said = f"names the handler {named}, which is neither in the archive nor one of TorchServe's own"
            yield Finding("error", MANIFEST, said, "Pack its file at the archive's root.")
    else:
        yield from _entry(file, function or None, read)
    model_file = model.get("modelFile")
    code = _module(read, model_file) if isinstance(model_file, str) else None
    if code and len(code.classes) != 1:
        said = f"defines {len(code.classes)} classes: TorchServe's own handlers take the one class of it for the model"
        yield Finding("warning", str(model_file), said, "Leave one, and import the others from another file.")


def _entry(path: str, function: str | None, read: Survey) -> Findings:
    code = _module(read, path)
    for wrong in code.entry(function) if code else ():
        level: Any = "warning" if "instead" in wrong else "error"
        yield Finding(
            level, path, wrong, "Leave one class with initialize and handle, or a function handle(data, context)."
        )


def _module(read: Survey, path: str) -> entry_point.Module | None:
    try:
        return entry_point.Module(read.text(path) or "") if path in read.kept else None
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
        found = file.pickled
        if file.start.startswith(b"PK\3\4"):
            try:
                with archive.open(path) as stream:
                    found = pickles.look_in_zip(stream)
            except (*DAMAGE, KeyError):
                said = "begins like a zip file and is none: torch.load and torch.jit.load refuse it"
                yield Finding("warning", path, said, "Save it again.")
                continue
        if found is None:
            continue
        if found.harmful:
            said = f"is {found.kind} that calls {some(list(found.harmful))} when it is loaded: no model needs that"
            yield Finding("error", path, said, "Do not load it; find out who made it.")
        else:
            names = f" (it names {some(list(found.names))})" if found.names else ""
            said = f"is {found.kind}{names}: loading it may run any code, with the server's rights"
            yield Finding("error", path, said, "Save weights as safetensors.")


def _own_code(read: Survey) -> Findings:
    """Code that came with the model, which its builder trusted."""
    try:
        named = [str(path) for path in json.loads(read.text(PROVENANCE) or "")["source"]["remote_code"]]
    except (ValueError, KeyError, TypeError, RecursionError):
        return
    if packed := [path for path in named if path in read.files]:
        when = "which was run to trace it" if "graph.json" in read.files else "which a server runs when it loads it"
        said = f"holds code that came with the model, {when}: {some(packed)}"
        yield Finding("note", "", said, "mar inspect tells where the model came from.")


def _tokenizer(read: Survey) -> Findings:
    """A model of transformers' that takes texts and has nothing to make tokens of them."""
    names = {path.rpartition("/")[2] for path in read.files}
    if "preprocessor_config.json" in names or any(fnmatch(name, kind) for name in names for kind in VOCABULARIES):
        return
    configs = [path for path in read.kept if re.fullmatch(r"(.*/)?config\.json", path)]
    if not any(re.search(r'"(model_type|architectures)"', read.text(path) or "") for path in configs):
        return
    own = "".join(read.text(path) or "" for path in read.kept if path.endswith("tokenizer_config.json"))
    if read.whole and not any(name in own for name in _NO_VOCABULARY):
        yield Finding(
            "warning",
            "",
            "holds a transformers model and no tokenizer: its handler fetches another one at load, or fails",
            "Pack the tokenizer's files beside config.json; mar build does.",
        )
