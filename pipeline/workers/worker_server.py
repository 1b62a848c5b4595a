"""The process that workers are forked from. Run as `python -m mar_pipeline.workers.worker_server FD PARENT`.

It imports torch once, and forks a worker for each job that it receives on its socket. When a job needs transformers, it
forks a second server, which imports the rest and serves its own socket. A job is a JSON message with four file
descriptors: the worker's standard input, output and error, and a pipe for its process id and exit code.

Only a process with one thread can be forked safely. If an import starts a second one, the server ends, and `client`
runs each worker as a separate program.
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
    """Serve the socket whose number is the first argument until its other end is closed. The second argument is the
    parent's process id."""
    preload(TORCH, int(sys.argv[2]))
    serve(socket.socket(fileno=int(sys.argv[1])), _work)


def preload(names: Iterable[str], parent: int) -> None:
    """Import the modules that workers need, and exit if the process `parent` ends. Failed imports are ignored: the
    worker that needs the module reports the error."""
    # During the imports, which take seconds, nobody reads the socket whose end of file shows that the parent ended.
    signal.signal(signal.SIGALRM, lambda *_: None if os.getppid() == parent else os._exit(1))
    signal.setitimer(signal.ITIMER_REAL, 0.01, 0.2)
    for name in names:
        with contextlib.suppress(Exception):
            import_module(name)
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    if len(list(Path("/proc/self/task").glob("*"))) > 1:
        os._exit(1)
    # The garbage collector writes to every object that it visits, which would copy every page into each worker.
    gc.collect()
    gc.freeze()


def serve(jobs: socket.socket, perform: Callable[[dict[str, Any]], None]) -> NoReturn:
    """Fork a process for each job, which calls `perform`. A job of null comes with a socket, which a second server with
    transformers serves."""
    running: dict[int, int] = {}
    """The pipe for the exit code of each worker, by its process id."""
    ours = os.getpid()
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    os.set_blocking(woken, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    while True:
        ready, _, _ = select.select([jobs.fileno(), woken], [], [])
        if woken in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(woken, 4096)
            _reap(running)
        if jobs.fileno() not in ready:
            continue
        message, descriptors, _, _ = socket.recv_fds(jobs, LONGEST, 4)
        if not message:
            os._exit(0)
        job = json.loads(message)
        if (pid := os.fork()) == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for number in (jobs.detach(), woken, wake, *running.values()):
                os.close(number)
            if job is None:
                preload(TRANSFORMERS, ours)
                serve(socket.socket(fileno=descriptors[0]), perform)
            _begin(job, *descriptors)
            perform(job)
            os._exit(0)
        if job is None:
            os.close(descriptors[0])
            continue
        *pipes, status = descriptors
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
    """Set up the forked process as `subprocess.Popen` would: its pipes, folder and environment, and a process group,
    which is killed as a whole."""
    os.setsid()
    os.write(status, f"{os.getpid()}\n".encode())
    os.close(status)
    for number, descriptor in enumerate((stdin, stdout, stderr)):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.chdir(job["cwd"])
    # As `python -m` sets it.
    sys.path[0] = job["cwd"]
    os.environ.clear()
    os.environ.update(job["env"])


def _work(job: dict[str, Any]) -> None:
    """Run a worker's job, as `python -m mar_pipeline.workers.worker` does."""
    _use_modules_cache()
    sys.argv[:] = ["mar_pipeline.workers.worker", *job["arguments"]]
    import_module("mar_pipeline.workers.worker").main()


def _use_modules_cache() -> None:
    """Make transformers use this job's folder for a model's own code: it reads the variable on import, and three
    modules have a copy of the value."""
    for name in ("transformers.utils.hub", "transformers.utils", "transformers.dynamic_module_utils"):
        if module := sys.modules.get(name):
            module.HF_MODULES_CACHE = os.environ["HF_MODULES_CACHE"]  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
