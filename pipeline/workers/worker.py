"""The worker: the one process that imports torch and transformers. Run as `python -m pipeline.workers.worker JOB.json`.

It reads a JSON job, does its operation, and says how it goes in JSON lines on standard output:
{"progress": [what, done, total]}, at last {"result": ...} or {"error": {code, what, why, fix, traceback}}.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import traceback
from collections.abc import Callable
from importlib import import_module
from typing import Any

from ..errors import UNEXPECTED, MarError, StageError, disk_is_full

Report = Callable[[str, int, int | None], None]

OPERATIONS = {
    "tokenizer": "pipeline.workers.loading:convert_tokenizer",
    "save": "pipeline.workers.loading:save",
    "prepare": "pipeline.workers.loading:prepare",
    "trace": "pipeline.workers.trace:trace",
    "eager": "pipeline.workers.reference:expected",
    "answer": "pipeline.portable.emulator:answers",
}


def _end_with_the_parent() -> None:
    # Our standard input is a pipe that nobody writes to: it ends when the parent does, however it does.
    sys.stdin.buffer.read()
    os._exit(UNEXPECTED)


def _told(error: BaseException, job: dict[str, Any]) -> dict[str, Any]:
    """An error as the parent reads it."""
    if disk_is_full(error):
        error = StageError(
            f"The disk is full: {job['op']} could not write to {job.get('out') or os.getcwd()}.",  # noqa: PTH109
            "All that is made goes into the cache first.",
            "Free some space (`mar cache gc --max-size 5GB`), or use --cache for another disk; then try again.",
        )
    local = sys.modules.get("pipeline.portable.emulator")
    if local is not None and isinstance(error, local.NotOneClass):
        error = StageError(str(error))
    if isinstance(error, MarError):
        return {"code": error.exit_code, "what": error.what, "why": error.why, "fix": error.fix}
    return {"code": UNEXPECTED, "traceback": "".join(traceback.format_exception(error))}


def main() -> None:
    """Do the job whose file is the first argument."""
    # Libraries print; the lines that the parent reads must be ours alone.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    threading.Thread(target=_end_with_the_parent, daemon=True).start()

    def say(message: dict[str, Any]) -> None:
        print(json.dumps(message), file=out, flush=True)

    def report(what: str, done: int = 0, total: int | None = None) -> None:
        say({"progress": [what, done, total]})

    with open(sys.argv[1], encoding="utf-8") as file:  # noqa: PTH123
        job = json.load(file)
    try:
        module, name = OPERATIONS[job["op"]].split(":")
        say({"result": getattr(import_module(module), name)(job, report)})
    except BaseException as error:
        say({"error": _told(error, job)})
    out.flush()
    # Not sys.exit: tearing torch down takes time, and its threads can hang.
    os._exit(0)


if __name__ == "__main__":
    main()
