"""`mar check --run`: an archive's handler is loaded in a sandbox and answers the archive's samples."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..answers import rehearsal
from ..archive.findings import SHOWN, Finding, Findings
from ..archive.reader import Archive
from ..cache.store import Store
from ..errors import MarError
from ..host.sandbox import Sandbox
from ..text import printable

_SEE = "See what `mar run --sandbox` prints."


def added(result: dict[str, Any], store: Store, path: Path, sandbox: Sandbox) -> dict[str, Any]:
    """The result of `check` with the findings of a run. An archive in which `check` found errors may be harmful, and
    the sandbox is for that; one that cannot be read is not run."""
    try:
        found = list(_findings(store, path, sandbox))
    except MarError as error:
        found = [Finding("error", "", f"does not run: {error.what.rstrip('.')}", error.fix)]
    for finding in found:
        result["findings"].append(asdict(finding))
        result[f"{finding.level}s"] += 1
    order = ("error", "warning", "note")
    result["findings"].sort(key=lambda finding: order.index(finding["level"]))
    return {**result, "ok": not result["errors"]}


def _findings(store: Store, path: Path, sandbox: Sandbox) -> Findings:
    samples = Archive(path).json("samples.json")
    if not isinstance(samples, list) or not samples:
        yield Finding("note", "samples.json", "has no requests, so the handler was loaded and not asked.")
        samples = []
    replies = rehearsal.answers(store, path, samples, sandbox=sandbox)
    pairs = list(zip(replies["single"], replies["statuses"], strict=True))
    for number, (answer, status) in list(enumerate(pairs, 1))[:SHOWN]:
        if status >= 300:
            said = printable(json.dumps(answer, ensure_ascii=False))[:200]
            yield Finding(
                "error", "samples.json", f"has a request {number} that the handler refuses ({status}): {said}"
            )
        elif not _is_json(answer):
            yield Finding("error", "", f"answers its sample {number} with NaN or Infinity, which is not JSON", _SEE)


def _is_json(value: Any) -> bool:
    """Whether a value can be written as JSON (RFC 8259), which has no NaN and no Infinity."""
    try:
        json.dumps(value, allow_nan=False)
    except (ValueError, RecursionError):
        return False
    return True
