"""Runs an archive's own handler in a worker process, without Java and without a server."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ..archive.reader import PROVENANCE, Archive
from ..cache.store import Store
from ..cache.workspace import workspace
from ..errors import InputError
from ..files import pointers, strict_json
from ..files.opening import read_text
from ..host.sandbox import Sandbox
from ..text import printable


def answers(
    store: Store, path: Path, requests: list[Any], *, explain: bool = False, sandbox: Sandbox | None = None
) -> dict[str, Any]:
    """The archive's answer to each request alone, or its explanations, and the HTTP statuses, in the form of
    `emulator.answers`. Raises InputError if the archive's graphs cannot run on this machine or its handler fails, and
    StageError for errors of the disk, or if it exceeds a limit."""
    from ..host import toolchain
    from ..host.chips import CHIPS
    from ..portable.graph import FACTS
    from ..workers.client import WorkerCrash, work
    from ..workers.limits import Limits

    archive = Archive(path)
    # A traced archive must work without transformers, so the worker cannot import it.
    traced = any(member.path == FACTS for member in archive.members())
    config = archive.manifest["model"].get("configFile")
    if config and all(member.path != config for member in archive.members()):
        raise InputError(
            f"{path} has a manifest that names {printable(str(config))}, which is not in it.",
            fix="Make the archive again; mar check shows what else is wrong.",
        )
    with workspace(store) as scratch:
        folder = archive.unpack(scratch / "model")
        for member in archive.members():
            if (file := folder / member.path).stat().st_size <= pointers.LONGEST:
                pointers.refuse(file.read_bytes(), f"{member.path} in {path}")
        job = {
            "folder": str(folder),
            "requests": requests,
            "without_transformers": traced,
            "explain": explain,
            "foreign": is_foreign(path),
        }
        limits = Limits.of(sum(member.size for member in archive.members()), advice="Send less text at once.")
        chip = CHIPS.get(_device(folder / FACTS))
        script = toolchain.WORKER if chip else None
        try:
            result = work(
                "answer", job, scratch=scratch, limits=limits, script=script, sandbox=sandbox, readable=[folder]
            )
        except WorkerCrash as crash:
            raise _failed(path, crash, folder, sandboxed=sandbox is not None) from None
    if chip is not None and isinstance(result, dict) and "unverified" in result:
        raise InputError(
            f"{path} runs on {chip.machines}, and not here: {result['unverified']}.",
            result["said"],
            f"Run it there, with a `mar` in an environment that has {chip.distribution}.",
        )
    return _checked(path, result, len(requests))


def _failed(path: Path, crash: Exception, folder: Path, *, sandboxed: bool) -> InputError:
    """The error for a crash of a worker that ran the archive unpacked in `folder`."""
    last = str(crash).strip().rpartition("\n")[2].strip()
    if not sandboxed:
        places = re.findall(rf'^  File "{re.escape(str(folder))}/(.+)", line (\d+)', str(crash), re.MULTILINE)
        at = f" ({printable(':'.join(places[-1]))[:100]})" if places else ""
        return InputError(
            f"{path} failed: {printable(last)[:300]}{at}.",
            "A file in it was changed or is damaged, or its handler does not suit the libraries installed here.",
            "Look at `mar check`, and at `mar doctor` for the libraries; if the archive is unchanged, report it.",
        )
    return InputError(
        f"{path} failed in the sandbox: {printable(last)[:300]}.",
        "A sandbox has no network, none of your files, no GPU and little room; or the handler has an error of its own.",
        "If you trust the archive, run it without --sandbox; --memory and --timeout set the limits.",
    )


def _checked(path: Path, result: Any, count: int) -> dict[str, Any]:
    """A worker's result. Raises InputError if it is in another form: an archive's code can write one itself."""
    replies = result if isinstance(result, dict) else {}
    single, statuses, hints = (replies.get(name) for name in ("single", "statuses", "hints"))
    if (
        not (isinstance(single, list) and isinstance(statuses, list) and isinstance(hints, list))
        or not len(single) == len(statuses) == count
        or not all(isinstance(status, int) for status in statuses)
        or not all(isinstance(hint, str) for hint in hints)
    ):
        raise InputError(
            f"The code of {path} wrote a result of its own, and not its answers.",
            fix="Do not use the archive unless you know why it does that.",
        )
    return replies


def is_foreign(path: Path) -> bool:
    """Whether another tool made an archive."""
    return all(member.path != PROVENANCE for member in Archive(path).members())


def _device(facts: Path) -> str:
    """The device in graph.json; "" if it cannot be read: then the handler reports the error."""
    try:
        return str(strict_json.loads(read_text(facts))["device"])
    except (OSError, ValueError, TypeError, KeyError):
        return ""
