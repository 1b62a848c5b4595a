"""A worker's protocol: it writes JSON lines to standard output. Each is {"progress": [what, done, total]}; the last is
{"result": ...} or {"error": {code, what, why, fix, traceback}}."""

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

    code = 3
    """The exit code of `mar` for this error."""

    def __init__(self, what: str, why: str = "", fix: str = "") -> None:
        super().__init__(what)
        self.what, self.why, self.fix = what, why, fix


def message_of(error: BaseException) -> str:
    """The most useful line of an error's message, at most 200 characters: the last if it is the message of an inner
    error ("ValueError: ..."), otherwise the first."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    named = re.match(r"(\w+Error): ", lines[-1])
    return lines[-1][named.end() :][:200] if named else lines[0][:200]


_out: Any = None
_one_at_a_time = threading.Lock()


def send(message: dict[str, Any]) -> None:
    """Write a message to the parent, as one line."""
    with _one_at_a_time:
        print(json.dumps(message), file=_out, flush=True)


def _end_with_the_parent() -> None:
    # The parent holds the other end of standard input, which is closed however the parent ends.
    sys.stdin.buffer.read()
    end()


def end() -> None:
    """End this process and, if it leads a process group, the compilers that it started."""
    if os.getpgid(0) == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def as_message(error: BaseException, job: Job) -> dict[str, Any]:
    """An error as a message to the parent, {code, what, why, fix} or {code, traceback}."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        error = Refused(
            f"The disk is full: {job['op']} could not write to {job.get('out') or Path.cwd()}.",
            "Every result is first written to the cache.",
            "Free some space (`mar cache gc --max-size 5GB`), or use --cache for another disk; then try again.",
        )
    if isinstance(error, Refused):
        return {"code": error.code, "what": error.what, "why": error.why, "fix": error.fix}
    return {"code": 1, "traceback": "".join(traceback.format_exception(type(error), error, error.__traceback__))}


def main(
    operations: Mapping[str, Callable[[Job, Report], Any]],
    describe: Callable[[BaseException, Job], dict[str, Any]] = as_message,
) -> None:
    """Run the job whose file is the first argument, by the operation that the job names, and exit. `describe` turns an
    error into a message."""
    global _out
    # Libraries print to standard output. The parent must read only our lines, so theirs go to standard error.
    _out = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    if stat.S_ISFIFO(os.fstat(0).st_mode):
        threading.Thread(target=_end_with_the_parent, daemon=True).start()

    def report(what: str, done: int = 0, total: int | None = None) -> None:
        send({"progress": [what, done, total]})

    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    try:
        send({"result": operations[job["op"]](job, report)})
    except BaseException as error:
        send({"error": describe(error, job)})
    # Not sys.exit: torch takes time to shut down, and its threads can hang.
    os._exit(0)
