"""How a worker speaks: JSON lines on standard output, {"progress": [what, done, total]}, at last {"result": ...} or
{"error": {code, what, why, fix, traceback}}."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import stat
import sys
import threading
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Report = Callable[[str, int, int | None], None]
    Job = dict[str, Any]


class Refused(Exception):
    """An expected error: `what` failed, `why` that usually happens, and how to `fix` it."""

    def __init__(self, what: str, why: str = "", fix: str = "") -> None:
        super().__init__(what)
        self.what, self.why, self.fix = what, why, fix


def message_of(error: BaseException) -> str:
    """The line of an error that says what is wrong: the first, or where the last is an error's own, below where it came
    from, that. What knows a model may list all that it knows, so it is cut."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    named = re.match(r"(\w+Error): ", lines[-1])
    return lines[-1][named.end() :][:200] if named else lines[0][:200]


_out: Any = None
_one_at_a_time = threading.Lock()


def say(message: dict[str, Any]) -> None:
    with _one_at_a_time:
        print(json.dumps(message), file=_out, flush=True)


def _end_with_the_parent() -> None:
    # A pipe that nobody writes to ends when the parent does, however it does.
    sys.stdin.buffer.read()
    end()


def end() -> None:
    """End this process and the compilers that it started, which are of its group if it leads one."""
    if os.getpgid(0) == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def as_message(error: BaseException, job: Job) -> dict[str, Any]:
    """An error as the parent reads it."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        error = Refused(
            f"The disk is full: {job['op']} could not write to {job.get('out') or Path.cwd()}.",
            "All that is made goes into the cache first.",
            "Free some space (`mar cache gc --max-size 5GB`), or use --cache for another disk; then try again.",
        )
    if isinstance(error, Refused):
        return {"code": 3, "what": error.what, "why": error.why, "fix": error.fix}
    return {"code": 1, "traceback": "".join(traceback.format_exception(type(error), error, error.__traceback__))}


def main(
    operations: Mapping[str, Callable[[Job, Report], Any]],
    describe: Callable[[BaseException, Job], dict[str, Any]] = as_message,
) -> None:
    """Do the job whose file is the first argument, by the operation that it names; `describe` makes a message of an
    error."""
    global _out
    # Libraries print; the lines that the parent reads must be ours alone.
    _out = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    if stat.S_ISFIFO(os.fstat(0).st_mode):
        threading.Thread(target=_end_with_the_parent, daemon=True).start()

    def report(what: str, done: int = 0, total: int | None = None) -> None:
        say({"progress": [what, done, total]})

    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    try:
        say({"result": operations[job["op"]](job, report)})
    except BaseException as error:
        say({"error": describe(error, job)})
    # Not sys.exit: tearing torch down takes time, and its threads can hang.
    os._exit(0)
