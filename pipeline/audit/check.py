"""Checks a finished archive: against its own record, against TorchServe's rules, and for harmful contents.

An error: the archive does not load, is served with other settings than it states, is not what was built, is not pinned,
or has a file that is not known to be harmless. A warning: it loads, but something in it has no effect, or only some
programs read it. A note: something cannot be checked, such as code that is not a released handler. The record
(provenance.json) itself is not verified: whoever changes a file can change the record too, and only a signature
protects against that.
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
from ..archive.reader import MANIFEST, PROVENANCE, Archive
from ..files import pointers
from ..model.checkpoint import VOCABULARIES
from ..text import printable
from . import handler_code, layout, server_rules
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
    read = survey(archive, examined=True)
    findings = [
        *_damage(read),
        *_pointers(read),
        *layout.findings(archive),
        *_record(read),
        *server_rules.manifest(archive.manifest, read),
        *handler_code.findings(archive.manifest, read),
        *_settings(archive.manifest, read),
        *_harmless(archive, read),
        *_tokenizer(read),
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


def _settings(manifest: dict[str, Any], read: Survey) -> Findings:
    model = manifest["model"]
    for key, rules in (("configFile", server_rules.settings), ("requirementsFile", server_rules.requirements)):
        named = model.get(key)
        if isinstance(named, str) and named in read.files:
            yield from rules(named, read.text(named))


def _harmless(archive: Archive, read: Survey) -> Findings:
    """The files that are not known to be harmless. What is wrong with settings is said by `_settings`."""
    config = archive.manifest["model"].get("configFile")
    for path, file in read.files.items():
        problem = file.problem
        if problem and (problem.pickled or path != config):
            yield Finding(problem.level, path, problem.what, problem.do)


def _pointers(read: Survey) -> Findings:
    """Git LFS pointers in place of files, such as weights."""
    for path, file in read.files.items():
        if pointers.is_pointer(file.start):
            what = "is a Git LFS pointer, and not the file itself: the worker dies while it loads"
            yield Finding("error", path, what, "Run `git lfs pull` where the archive was made, and make it again.")


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
