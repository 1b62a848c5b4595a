"""The process that workers are forked from. Run as `python -m mar_pipeline.workers.worker_server FD PARENT`.

It imports torch once and forks a worker for each job that its socket brings. One more process is forked off it when a
job needs transformers: that one imports the rest, and serves a socket of its own. A job is a message (JSON) with four
file descriptors: the worker's standard input, output and error, and a pipe that says its process id and its exit code.

Only a process with one thread can be forked safely. If an import starts a second one, the server ends, and `client`
runs each worker as a program of its own.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import signal
import socket
import sys
from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from .warm import LONGEST

TORCH = (
    "mar_pipeline.workers.worker",
    "mar_pipeline.portable.emulator",
    "torch",
    "tokenizers",
    "safetensors.torch",
    "yaml",
)
TRANSFORMERS = (
    "mar_pipeline.workers.loading",
    "mar_pipeline.workers.reference",
    "mar_pipeline.workers.trace",
    "transformers.pipelines",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
)


def main() -> None:
    """Serve the socket whose number is the first argument until its other end is closed. The second is the process id
    of who started us."""
    preload(TORCH, int(sys.argv[2]))
    serve(socket.socket(fileno=int(sys.argv[1])), _work)


def preload(names: Iterable[str], parent: int) -> None:
    """Import what workers need, and end with the process `parent`. What cannot be imported, the worker that needs it
    reports."""
    # Imports take seconds, in which nobody reads the socket that tells the parent's end.
    signal.signal(signal.SIGALRM, lambda *_: None if os.getppid() == parent else os._exit(1))
    signal.setitimer(signal.ITIMER_REAL, 0.01, 0.2)
    for name in names:
        with contextlib.suppress(Exception):
            import_module(name)
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    if len(list(Path("/proc/self/task").glob("*"))) > 1:
        os._exit(1)
    # The collector writes to every object that it looks at, and so would copy each page of them into each worker.
    gc.collect()
    gc.freeze()


def serve(asked: socket.socket, perform: Callable[[dict[str, Any]], None]) -> NoReturn:
    """Fork a process for each job, which has `perform` do it. A job of null brings the socket that a further process
    is to serve, which has transformers too."""
    running: dict[int, int] = {}
    """The pipe that waits for the exit code of each worker, by its process id."""
    ours = os.getpid()
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    os.set_blocking(woken, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    while True:
        ready, _, _ = select.select([asked.fileno(), woken], [], [])
        if woken in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(woken, 4096)
            _reap(running)
        if asked.fileno() not in ready:
            continue
        message, given, _, _ = socket.recv_fds(asked, LONGEST, 4)
        if not message:
            os._exit(0)
        job = json.loads(message)
        if (pid := os.fork()) == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for number in (asked.detach(), woken, wake, *running.values()):
                os.close(number)
            if job is None:
                preload(TRANSFORMERS, ours)
                serve(socket.socket(fileno=given[0]), perform)
            _begin(job, *given)
            perform(job)
            os._exit(0)
        if job is None:
            os.close(given[0])
            continue
        *pipes, status = given
        for number in pipes:
            os.close(number)
        running[pid] = status


def _reap(running: dict[int, int]) -> None:
    """Report the exit code of every worker that has ended."""
    while True:
        try:
            pid, ended = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        if (status := running.pop(pid, None)) is not None:
            with contextlib.suppress(BrokenPipeError):
                os.write(status, f"{os.waitstatus_to_exitcode(ended)}\n".encode())
            os.close(status)


def _begin(job: dict[str, Any], stdin: int, stdout: int, stderr: int, status: int) -> None:
    """Make the forked process what `subprocess.Popen` would have made: with pipes, folder and environment of its own,
    and a group, so that it ends with all that it started."""
    os.setsid()
    os.write(status, f"{os.getpid()}\n".encode())
    os.close(status)
    for number, given in enumerate((stdin, stdout, stderr)):
        os.dup2(given, number)
        os.close(given)
    os.chdir(job["cwd"])
    # As `python -m` has it.
    sys.path[0] = job["cwd"]
    os.environ.clear()
    os.environ.update(job["env"])


def _work(job: dict[str, Any]) -> None:
    """Do a worker's job, as `python -m mar_pipeline.workers.worker` does it."""
    _use_modules_cache()
    sys.argv[:] = ["mar_pipeline.workers.worker", *job["arguments"]]
    import_module("mar_pipeline.workers.worker").main()


def _use_modules_cache() -> None:
    """Have transformers use this job's folder for a model's own code: it reads the variable when it is imported, and
    three modules keep the value."""
    for name in ("transformers.utils.hub", "transformers.utils", "transformers.dynamic_module_utils"):
        if module := sys.modules.get(name):
            module.HF_MODULES_CACHE = os.environ["HF_MODULES_CACHE"]  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
