"""Commands and workers that need not import anything: each is forked off a process that has.

It is still the command line that runs, in a process of its own, with its own environment, folder, signals and pipes.
All commands share one server of workers (`workers`). A test that is about processes themselves (signals, what is
imported, Python's own variables) runs the command as a program: `Mar(...)(..., process=True)`.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from mar_pipeline import ROOT as PACKAGE
from mar_pipeline.builder import session
from mar_pipeline.workers import client, warm, worker_server
from tests.support import ROOT, workers
from tests.support.stand_ins import neuron

# What the command imports late, but for huggingface_hub, fsspec and mlflow: they read variables when they are imported.
COMMAND = (
    "mar_pipeline.__main__",
    "mar_pipeline.config.build_config",
    "mar_pipeline.builder.session",
    "mar_pipeline.answers.rehearsal",
    "mar_pipeline.serving.smoke",
    "mar_pipeline.audit.check",
    "mar_pipeline.archive.contents",
    "mar_pipeline.audit.diff",
    "mar_pipeline.model.lock",
    "mar_pipeline.host.doctor",
    "concurrent.futures.thread",
    "filelock",
    "model_archiver.model_packaging_utils",
    "platformdirs",
    "rich.console",
    "tokenizers",
    # Of huggingface_hub, s3fs and mlflow what reads no variables.
    "httpx",
    "aiobotocore.session",
    "numpy",
    "fastapi",
)

UNTIL = "TESTS_UNTIL"
"""The variable with the stage that a forked command's builds end after."""

# These are read by Python, or by libraries as they are loaded.
_AT_START = ("PYTHON", "LD_", "OMP_", "MKL_", "OPENBLAS_", "TORCH_", "PATH")


class Zygote(warm.Server):
    """The process that commands are forked from. To be closed."""

    def __init__(self) -> None:
        self._env = _at_start(dict(os.environ))
        env = {**os.environ, **client.environment()}
        env["PYTHONPATH"] = os.pathsep.join([env["PYTHONPATH"], str(ROOT)])
        super().__init__(env, "tests.support.zygote")
        socket.send_fds(self._torch, [b"workers"], workers.server().sockets())

    def command(self, words: list[str], cwd: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str] | None:
        """What `python -m mar_pipeline WORDS` does in this folder and environment; None if it has to be a program."""
        if _at_start(env) != self._env:
            return None
        lines: list[str] = []
        with tempfile.NamedTemporaryFile() as errors:
            code = self.run(
                words, cwd=cwd, env=env, log=Path(errors.name), on_line=lines.append, running=set[warm.Worker]()
            )
            said = Path(errors.name).read_bytes().decode()
        return subprocess.CompletedProcess(words, code, "".join(lines), said)


def _at_start(env: dict[str, str]) -> dict[str, str]:
    path = [part for part in env.get("PYTHONPATH", "").split(os.pathsep) if part and not neuron.is_alone_in(Path(part))]
    return {
        **{name: value for name, value in env.items() if name.startswith(_AT_START)},
        "PYTHONPATH": os.pathsep.join(path),
    }


def _command(job: dict[str, Any]) -> None:
    workers.search_as_a_program(job["cwd"])
    if until := os.environ.pop(UNTIL, ""):
        session.run = partial(session.run, until=until)
    sys.argv[:] = [str(PACKAGE / "__main__.py"), *job["arguments"]]
    code: Any = 0
    try:
        import_module("mar_pipeline.__main__").main()
    except SystemExit as end:
        code = end.code
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(int(code or 0))


if __name__ == "__main__":
    jobs = socket.socket(fileno=int(sys.argv[1]))
    lent = workers.Lent(*socket.recv_fds(jobs, 100, 2)[1])
    worker_server.preload(COMMAND, int(sys.argv[2]))
    assert not {"torch", "transformers", "huggingface_hub"} & set(sys.modules)
    warm._server, client.run = lent, workers.forking(lent)
    worker_server.serve(jobs, _command)
