"""Workers that need not import torch and transformers: each is forked off one server, which all commands share.

It also forks workers that the package runs as programs: those with variables of their own, and those of a Neuron
compiler's environment, if that is this interpreter's.
"""

from __future__ import annotations

import atexit
import json
import os
import runpy
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

from mar_pipeline.host import toolchain
from mar_pipeline.workers import client, warm, worker_server
from tests.support import ROOT

_AS_MODULE = ["-m", "mar_pipeline.workers.worker"]


class Workers(warm.Server):
    """The server of all commands' workers: none of them ends it."""

    def __init__(self) -> None:
        env = client.environment()
        env["PYTHONPATH"] = os.pathsep.join([env["PYTHONPATH"], str(ROOT)])
        super().__init__(env, "tests.support.workers")
        self._with_transformers()
        atexit.register(super().close)

    def sockets(self) -> list[int]:
        return [self._torch.fileno(), self._with_transformers().fileno()]

    def close(self) -> None:
        pass


class Lent(warm.Server):
    """The same server, in another process, by its sockets."""

    def __init__(self, with_torch: int, with_transformers: int) -> None:
        self.served = True
        self._torch = socket.socket(fileno=with_torch)
        self._its_transformers = socket.socket(fileno=with_transformers)

    def _with_transformers(self) -> socket.socket:
        return self._its_transformers

    def close(self) -> None:
        pass


@cache
def server() -> Workers:
    """This process's server."""
    return Workers()


def forking(workers: warm.Server) -> Callable[..., int]:
    """`client.run`, but a worker of this interpreter is forked, unless it is to run in a sandbox."""
    program = client.run

    def run(
        command: list[str],
        *,
        cwd: Path,
        log: Path,
        env: dict[str, str] | None = None,
        ours: bool = True,
        on_line: Callable[[str], None] | None = None,
        worker: warm.Worker | None = None,
        **held: Any,
    ) -> int:
        python, *words = command
        if not held.get("sandbox") and python == sys.executable and words[:-1] in (_AS_MODULE, [str(toolchain.WORKER)]):
            job = json.loads(Path(words[-1]).read_text(encoding="utf-8"))
            with suppress(warm.NoServer):
                return workers.run(
                    words,
                    cwd=cwd,
                    env=client.environment(env, ours=ours),
                    log=log,
                    on_line=on_line or (lambda _: None),
                    running=client._forked,
                    worker=worker,
                    transformers=not job.get("without_transformers"),
                )
        return program(command, cwd=cwd, log=log, env=env, ours=ours, on_line=on_line, worker=worker, **held)

    return run


def work(op: str, job: dict[str, Any], **others: Any) -> Any:
    """`client.work`, whose worker is forked."""
    with patch.object(client, "run", forking(server())), patch.object(warm, "_server", server()):
        return client.work(op, job, **others)


_OURS = os.environ.get("PYTHONPATH", "").split(os.pathsep)


def search_as_a_program(first: str) -> None:
    """Set `sys.path` as Python does when it starts in this environment: `first` is the script's folder."""
    path = [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]
    sys.path[:] = [first, *path, *(part for part in sys.path[1:] if part not in _OURS)]


def _work(job: dict[str, Any]) -> None:
    *what, file = job["arguments"]
    if what == [str(toolchain.WORKER)]:
        search_as_a_program(str(toolchain.WORKER.parent))
        worker_server._use_modules_cache()
        sys.argv[:] = job["arguments"]
        runpy.run_path(what[0], run_name="__main__")
    else:
        search_as_a_program(job["cwd"])
        worker_server._work({**job, "arguments": [file]})


if __name__ == "__main__":
    # In the server that has transformers.
    worker_server.TRANSFORMERS += ("tests.support.preloaded",)
    worker_server.preload(worker_server.TORCH, int(sys.argv[2]))
    worker_server.serve(socket.socket(fileno=int(sys.argv[1])), _work)
