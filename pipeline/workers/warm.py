"""Forks workers from a server process that has imported torch and transformers (`worker_server`).

The server starts with the first job and ends with this process. Each worker is a separate process.
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
"""The most bytes of a message to the server: a socket's default buffer has 212,992 (socket(7))."""


LONGEST_LINE = 1 << 28
"""The most characters of a worker's line that are read: its result. Those of a build have a few million."""


class NoServer(Exception):
    """There is no server to fork a worker: run it as a separate program."""


class Worker:
    """A worker that runs or is being started."""

    def __init__(self) -> None:
        self.pid: int | None = None

    def kill(self) -> None:
        """Kill it with all its children. A worker that is being started ends when its standard input is closed."""
        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)


class Server:
    """A server and its sockets. Its methods are thread-safe."""

    def __init__(self, env: dict[str, str], module: str = "mar_pipeline.workers.worker_server") -> None:
        self.served = False
        """Whether it has forked a worker."""
        self._lock = threading.Lock()
        self._torch, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._transformers: socket.socket | None = None
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, str(theirs.fileno()), str(os.getpid())],
                # With this, torch asks the driver and not CUDA whether there is a GPU: CUDA does not survive a fork.
                # And numpy's OpenBLAS starts no threads.
                env={**env, "PYTORCH_NVML_BASED_CUDA_CHECK": "1", "OPENBLAS_NUM_THREADS": "1"},
                # `python -m` imports from its working folder first: it must not be the user's.
                cwd=ROOT.parent,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                # Ctrl-C goes to this process, which closes the server.
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
        worker: Worker | None = None,
        transformers: bool = False,
    ) -> int:
        """Run a worker with these arguments and return its exit code.

        Its standard error goes to `log`, each line of its standard output to `on_line`. It is in `running` meanwhile,
        as `worker` if that is given, and is killed if this process is interrupted. Raises NoServer if it did not start.
        """
        (stdin, alive), (lines, stdout), (code, status) = os.pipe(), os.pipe(), os.pipe()
        worker = worker or Worker()
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
                while line := output.readline(LONGEST_LINE):
                    on_line(line)
                # No exit code: the server was killed. Closing the worker's input ends it.
                return int(state.readline() or -signal.SIGKILL)
            except BaseException:
                worker.kill()
                raise
            finally:
                running.discard(worker)

    def _send(self, transformers: bool, message: bytes, descriptors: list[int]) -> None:
        if len(message) > LONGEST:
            raise NoServer
        try:
            socket.send_fds(self._with_transformers() if transformers else self._torch, [message], descriptors)
        except OSError as error:  # the server has ended
            raise NoServer from error

    def _with_transformers(self) -> socket.socket:
        """The socket of the server that has transformers too; that server is started once."""
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
    worker: Worker,
    transformers: bool,
) -> int:
    """`Server.run` of this process's server, which starts with the first job. Raises NoServer if it cannot run."""
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
            arguments,
            cwd=cwd,
            env=env,
            log=log,
            on_line=on_line,
            running=running,
            worker=worker,
            transformers=transformers,
        )
    except NoServer:
        with _starting:
            if _server is server:
                close()
            # A server that has served before was killed: the next job starts a new one.
            _possible = server.served
        raise


def close() -> None:
    """End this process's server, if it has one."""
    global _server
    server, _server = _server, None
    if server is not None:
        server.close()
