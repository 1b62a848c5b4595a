"""Runs workers and other programs in child processes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from .. import ROOT
from ..errors import InputError, StageError
from ..files import private
from ..host import environment as variables
from ..host.sandbox import Sandbox
from ..text import printable
from . import warm
from .limits import Limits, watched

_UNLIMITED = Limits()
_ON_TOKENIZERS = ("tokenizer", "samples")
_ERRORS = {InputError.exit_code: InputError, StageError.exit_code: StageError}

_running: set[subprocess.Popen[str]] = set()
_forked: set[warm.Worker] = set()


class WorkerCrash(Exception):
    """A worker ended unexpectedly; the message is its traceback, or the end of its log."""


def environment(extra: dict[str, str] | None = None, *, ours: bool = True) -> dict[str, str]:
    """The environment of a child: the variables that `host.environment` passes on, no progress bars, and `extra`. With
    `ours`, the child can import this package."""
    env = variables.environment()
    env |= {
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "TRANSFORMERS_VERBOSITY": "error",
        "PYTHONUNBUFFERED": "1",
    }
    if ours:
        # The worker runs in its own folder, so the package must be importable from anywhere.
        path = variables.search_path(env.get("PYTHONPATH", ""), *variables.LIBRARIES)
        env["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT.parent), path)))
    return env | (extra or {})


def run(
    command: list[str],
    *,
    cwd: Path,
    log: Path,
    env: dict[str, str] | None = None,
    ours: bool = True,
    on_line: Callable[[str], None] | None = None,
    worker: warm.Worker | None = None,
    sandbox: Sandbox | None = None,
    readable: Iterable[Path] = (),
) -> int:
    """Run a program to its end and return its exit code. Its standard error goes to `log`, each line of its standard
    output to `on_line`. If this process is interrupted, the program is killed with all its children. `env` and `ours`
    are the arguments of `environment`; `worker` learns the process id.

    In a `sandbox`, it can also read the folders `readable`. Raises StageError if it was over a limit of the sandbox."""
    environ = environment(env, ours=ours)
    inherited: list[int] = []
    with contextlib.ExitStack() as stack:
        errors = stack.enter_context(log.open("ab"))
        if sandbox is not None:
            environ = sandbox.environment(environ)
            command, inherited = stack.enter_context(sandbox.command(command, cwd=cwd, readable=readable))
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
            pass_fds=inherited,
        )
    _running.add(process)
    if worker is not None:
        worker.pid = process.pid
    try:
        output = process.stdout
        assert output is not None
        with contextlib.ExitStack() as stack:
            over = stack.enter_context(sandbox.watched(process)) if sandbox is not None else []
            while line := output.readline(warm.LONGEST_LINE):
                if on_line:
                    on_line(line)
            code = process.wait()
        if over:
            raise StageError(
                f"The sandbox was ended: it {over[0]}.",
                "A program in it may be stuck or hostile, or the limit is too low for an honest one.",
                "Set a higher limit if you trust it.",
            )
        return code
    except BaseException:
        _kill(process)
        raise
    finally:
        _running.discard(process)
        for pipe in (process.stdin, process.stdout):
            if pipe:
                pipe.close()


def _kill(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        # Another thread may have reaped it meanwhile.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def stop() -> None:
    """Kill every program and worker that still runs, from whichever thread."""
    for process in list(_running):
        _kill(process)
    for worker in list(_forked):
        worker.kill()


def work(
    op: str,
    job: dict[str, Any],
    *,
    scratch: Path,
    progress: Callable[[str, int, int | None], None] | None = None,
    limits: Limits = _UNLIMITED,
    python: str = sys.executable,
    script: Path | None = None,
    env: dict[str, str] | None = None,
    sandbox: Sandbox | None = None,
    readable: Iterable[Path] = (),
) -> Any:
    """Run the operation `op` (`worker.OPERATIONS`) in a worker and return its result.

    A `script` runs as the worker instead, without this package on its path. A worker of this interpreter without an
    `env` is forked (`warm`). A model's own code is copied into the worker's folder, so that workers do not share it.
    In a `sandbox`, a worker is a program of its own, which can read the folders `readable`.

    Raises the InputError or StageError that the worker reports, StageError if it exceeds its `limits` or was killed,
    InputError if a tokenizer crashed it, else WorkerCrash.
    """
    folder = scratch / f"{op}-{uuid.uuid4().hex[:8]}"
    folder.mkdir(mode=0o700, parents=True)
    job_file, log = folder / "job.json", folder / "log.txt"
    # Requests are in it, which are nobody else's business.
    private.write(job_file, json.dumps({"op": op, **job}).encode())
    last: dict[str, Any] = {}
    doing = [f"starting ({op})"]
    code: int | None = None

    def on_line(line: str) -> None:
        message = _message(line)
        if "progress" in message:
            doing[:] = message["progress"][:1]
            if progress:
                progress(*message["progress"])
        else:
            last.clear()
            last.update(message)

    modules = {"HF_MODULES_CACHE": str(folder / "modules")}
    worker = warm.Worker()
    # A sandbox has limits of its own.
    with watched(worker, limits if sandbox is None else _UNLIMITED, doing) as ended:
        if script is None and python == sys.executable and env is None and sandbox is None:
            with contextlib.suppress(warm.NoServer):
                code = warm.run(
                    [str(job_file)],
                    cwd=folder,
                    env=environment(modules),
                    log=log,
                    on_line=on_line,
                    running=_forked,
                    worker=worker,
                    transformers=not job.get("without_transformers"),
                )
        if code is None:
            command = [python, *([str(script)] if script else ["-m", "mar_pipeline.workers.worker"]), str(job_file)]
            code = run(
                command,
                cwd=folder,
                log=log,
                env=modules | (env or {}),
                ours=script is None,
                on_line=on_line,
                worker=worker,
                sandbox=sandbox,
                readable=readable,
            )
    if ended:
        raise ended[0]
    if "result" in last:
        return last["result"]
    if "error" in last:
        error = last["error"]
        if error["code"] in _ERRORS:
            raise _ERRORS[error["code"]](error["what"], error["why"], error["fix"])
        raise WorkerCrash(error["traceback"])
    if code < 0:
        _refuse_tokenizer(op, -code, doing[0])
        killed = code == -signal.SIGKILL
        raise StageError(
            f"The worker was ended by {signal.Signals(-code).name} while {doing[0]}.",
            "Usually the machine ran out of memory." if killed else "Usually a native library in it crashed.",
            "Look at `dmesg`, free memory, or build on a larger machine."
            if killed
            else "Install its libraries again (`mar doctor` lists them), or report it with the model.",
        )
    raise WorkerCrash(tail(log) or f"the worker ended with exit code {code} and no message")


def _message(line: str) -> dict[str, Any]:
    """A worker's message. Raises StageError if it is not one: code of an archive can write anything."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        message = None
    if not _is_message(message):
        raise StageError(
            f"The worker wrote something that is no message: {printable(line[:80])}",
            "Code of the model, or of the archive, wrote to the worker's standard output; or its result is too large.",
            "Correct that code; for a large result, ask for less at once.",
        )
    return dict(message)


def _is_message(message: Any) -> bool:
    """Whether it has the form of `portable.protocol`'s messages."""
    if not isinstance(message, dict):
        return False
    progress, error = message.get("progress"), message.get("error")
    if progress is not None:
        return isinstance(progress, list) and len(progress) == 3 and isinstance(progress[0], str)
    if error is not None:
        code = error.get("code") if isinstance(error, dict) else None
        if not isinstance(code, int):
            return False
        texts = ("what", "why", "fix") if code in _ERRORS else ("traceback",)
        return all(isinstance(error.get(key), str) for key in texts)
    return "result" in message


def _refuse_tokenizer(op: str, number: int, doing: str) -> None:
    """Raises InputError if a worker ended itself because the model's files take too long (`bounded`), or if it only
    read a tokenizer and crashed: the library aborts at some files."""
    if number == signal.SIGVTALRM:
        raise InputError(
            f"The model's files cannot be used: the worker took too long while {doing}.",
            "A pattern, a normalizer or a template in them takes forever.",
            "Restore tokenizer.json, the chat template and the adapter's config from the model's source.",
        )
    if op in _ON_TOKENIZERS and number not in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
        raise InputError(
            f"The tokenizer crashed while {doing} ({signal.Signals(number).name}).",
            "Its files are damaged, or a pattern or a normalizer in them asks for too much memory.",
            "Restore tokenizer.json from the model's source, or save the tokenizer again.",
        )


def tail(log: Path, lines: int = 40) -> str:
    """The last lines of a log."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - (64 << 10)))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""
