"""Workers that need not import torch and transformers: each is forked off a server that has (`worker_server`).

The server starts with the first job and ends with this process. Each worker is still a process of its own.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from .. import ROOT

LONGEST = 1 << 17
"""Bytes of a message to the server: a socket's default buffer holds 212,992 (socket(7))."""


class NoServer(Exception):
    """There is no server to fork a worker: run it as a program of its own."""


class Worker:
    """One that runs, or is about to."""

    def __init__(self) -> None:
        self.pid: int | None = None

    def kill(self) -> None:
        """End it with all that it started. One that has not begun ends at once when its standard input is closed."""
        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)


class Server:
    """A server, and its sockets. Its methods may be called from several threads."""

    def __init__(self, env: dict[str, str], module: str = "mar_pipeline.workers.worker_server") -> None:
        self.served = False
        """Whether it has forked a worker."""
        self._lock = threading.Lock()
        self._torch, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._transformers: socket.socket | None = None
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, str(theirs.fileno()), str(os.getpid())],
                # torch then asks the driver, and not CUDA, whether there is a GPU: CUDA does not survive a fork. And
                # numpy's OpenBLAS, with which nothing is computed here, starts no threads.
                env={**env, "PYTORCH_NVML_BASED_CUDA_CHECK": "1", "OPENBLAS_NUM_THREADS": "1"},
                # `python -m` looks for modules in its working folder first: not in the user's.
                cwd=ROOT.parent,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                # Ctrl-C is for us: we close it.
                start_new_session=True,
            )

    def run(
        self,
        arguments: Sequence[str],
        *,
        cwd: Path,
        env: dict[str, str],
        log: Path,
        on_line: Callable[[str], None],
        running: set[Worker],
        transformers: bool = False,
    ) -> int:
        """Have a worker run with these arguments; its exit code.

        Its standard error goes to `log`, each line of its standard output to `on_line`. It is in `running` meanwhile,
        and is killed if we are interrupted. Raises NoServer if it has not begun.
        """
        (stdin, alive), (lines, stdout), (code, status) = os.pipe(), os.pipe(), os.pipe()
        worker = Worker()
        running.add(worker)
        with (
            log.open("ab") as errors,
            os.fdopen(alive, "wb"),
            os.fdopen(lines, encoding="utf-8", errors="replace") as output,
            os.fdopen(code) as state,
        ):
            try:
                try:
                    message = json.dumps({"arguments": list(arguments), "cwd": str(cwd), "env": env}).encode()
                    self._send(transformers, message, [stdin, stdout, errors.fileno(), status])
                finally:
                    for number in (stdin, stdout, status):
                        os.close(number)
                if not (pid := state.readline()):
                    raise NoServer
                worker.pid, self.served = int(pid), True
                for line in output:
                    on_line(line)
                # Without an answer the server itself was killed, and the worker loses its input now.
                return int(state.readline() or -signal.SIGKILL)
            except BaseException:
                worker.kill()
                raise
            finally:
                running.discard(worker)

    def _send(self, transformers: bool, message: bytes, given: list[int]) -> None:
        if len(message) > LONGEST:
            raise NoServer
        try:
            socket.send_fds(self._with_transformers() if transformers else self._torch, [message], given)
        except OSError as error:  # the server has ended
            raise NoServer from error

    def _with_transformers(self) -> socket.socket:
        """The socket of the process that has transformers too, which is asked for once."""
        with self._lock:
            if self._transformers is None:
                ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                with theirs:
                    socket.send_fds(self._torch, [b"null"], [theirs.fileno()])
                self._transformers = ours
            return self._transformers

    def close(self) -> None:
        """End the server. A worker that still runs ends with its pipes."""
        self._torch.close()
        if self._transformers is not None:
            self._transformers.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


_server: Server | None = None
_possible = sys.platform == "linux"
_starting = threading.Lock()


def run(
    arguments: Sequence[str],
    *,
    cwd: Path,
    env: dict[str, str],
    log: Path,
    on_line: Callable[[str], None],
    running: set[Worker],
    transformers: bool,
) -> int:
    """`Server.run` by this process's server, which starts with the first job. Raises NoServer if there can be none."""
    global _server, _possible
    with _starting:
        if not _possible:
            raise NoServer
        if _server is None:
            _server = Server({name: value for name, value in env.items() if name != "HF_MODULES_CACHE"})
            atexit.register(close)
        server = _server
    try:
        return server.run(
            arguments, cwd=cwd, env=env, log=log, on_line=on_line, running=running, transformers=transformers
        )
    except NoServer:
        with _starting:
            if _server is server:
                close()
            # One that has served was killed, and the next job gets a new one.
            _possible = server.served
        raise


def close() -> None:
    """End this process's server, if it has one."""
    global _server
    server, _server = _server, None
    if server is not None:
        server.close()
