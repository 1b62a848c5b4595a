"""What an archive's own handler answers, in a process here: no Java, no server."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from .archive import Archive
from .errors import InputError
from .store import Store


def request(text: str) -> Any:
    """What --input says: `-` is standard input, @file a file; JSON if it is JSON, else plain text."""
    try:
        if text == "-":
            text = sys.stdin.read()
        elif text.startswith("@"):
            text = Path(text[1:]).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"--input {text}: {error}.", fix="Give JSON or text itself, @file, or - for standard input."
        ) from None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def answers(store: Store, path: Path, requests: list[Any], *, explain: bool = False) -> dict[str, Any]:
    """What the archive at `path` answers to each request alone, or explains, and the statuses, as `local.answers` has
    it."""
    from .child import work

    archive = Archive(path)
    # A traced archive promises to need no transformers, so it gets none.
    traced = any(member.path == "graph.json" for member in archive.members())
    with store.in_use(), store.scratch() as scratch:
        job = {
            "folder": str(archive.unpack(scratch / "model")),
            "requests": requests,
            "without_transformers": traced,
            "explain": explain,
        }
        return dict(work("answer", job, scratch=scratch))
