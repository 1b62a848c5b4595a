"""What an archive's own handler answers, in a process here: no Java, no server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..archive.reader import Archive
from ..cache.store import Store
from ..errors import InputError


def answers(store: Store, path: Path, requests: list[Any], *, explain: bool = False) -> dict[str, Any]:
    """What the archive at `path` answers to each request alone, or explains, and the statuses, as `emulator.answers`
    has it."""
    from ..host import toolchain
    from ..host.chips import CHIPS
    from ..portable.graph import FACTS
    from ..workers.client import work

    archive = Archive(path)
    # A traced archive promises to need no transformers, so it gets none.
    traced = any(member.path == FACTS for member in archive.members())
    with store.in_use(), store.scratch() as scratch:
        folder = archive.unpack(scratch / "model")
        job = {
            "folder": str(folder),
            "requests": requests,
            "without_transformers": traced,
            "explain": explain,
        }
        chip = CHIPS.get(_device(folder / FACTS))
        if chip is None:
            return dict(work("answer", job, scratch=scratch))
        found = dict(work("answer", job, scratch=scratch, script=toolchain.WORKER))
    if "unverified" in found:
        raise InputError(
            f"{path} runs on {chip.machines}, and not here: {found['unverified']}.",
            found["said"],
            f"Run it there, with a `mar` in an environment that has {chip.distribution}.",
        )
    return found


def _device(facts: Path) -> str:
    """What a graph was made for; "" if its file does not tell, which its handler says better."""
    try:
        return str(json.loads(facts.read_text(encoding="utf-8"))["device"])
    except (OSError, ValueError, RecursionError, TypeError, KeyError):
        return ""
