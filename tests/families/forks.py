"""Workers that need not import torch: each is forked off a process that has.

It is still `pipeline.worker` that runs, in a process of its own for each operation, on pipes as `child.run` makes them.
A worker that has to do without transformers is forked off a process that never imported it.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import NoReturn

BARE = ("pipeline.worker", "pipeline.local", "torch", "tokenizers", "safetensors.torch", "yaml")
WHOLE = (
    *BARE,
    "pipeline.eager",
    "pipeline.loading",
    "pipeline.backends.torchscript",
    "transformers.pipelines",
    "transformers.models.auto.modeling_auto",
)
_LONGEST = 1 << 16


class Forks:
    """A process that has imported these modules, and forks workers off itself. To be closed."""

    def __init__(self, modules: Sequence[str]) -> None:
        from pipeline.child import environment

        self._ask, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.families.forks", str(theirs.fileno()), *modules],
                # More than one thread could not be forked.
                env=environment({"OMP_NUM_THREADS": "1"}),
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                # Ctrl-C is for those who ask: they close it.
                start_new_session=True,
            )

    def run(self, job: Path, cwd: Path, log: Path, env: dict[str, str], on_line: Callable[[str], None] | None) -> int:
        """Do a worker's job; its exit code, as `child.run` has it. What is imported has seen nothing of `env`."""
        (stdin, alive), (lines, stdout), (code, status) = os.pipe(), os.pipe(), os.pipe()
        with log.open("ab") as errors, os.fdopen(alive, "wb"), os.fdopen(code) as ended:
            given = [stdin, stdout, errors.fileno(), status]
            try:
                message = json.dumps([str(job), str(cwd), env]).encode()
                socket.send_fds(self._ask, [message], given)
            finally:
                for end in (stdin, stdout, status):
                    os.close(end)
            with os.fdopen(lines, encoding="utf-8", errors="replace") as said:
                for line in said:
                    if on_line:
                        on_line(line)
            told = ended.read()
        assert told, f"no worker was forked for {job}"
        return int(told)

    def close(self) -> None:
        self._ask.close()
        self._process.wait()


@contextmanager
def forked() -> Iterator[None]:
    """Have every worker of this process forked."""
    from pipeline import child

    whole, bare, run = Forks(WHOLE), Forks(BARE), child.run

    def fork(
        command: list[str],
        *,
        cwd: Path,
        log: Path,
        env: dict[str, str] | None = None,
        ours: bool = True,
        on_line: Callable[[str], None] | None = None,
    ) -> int:
        assert ours
        assert command[1:3] == ["-m", "pipeline.worker"]
        job = Path(command[3])
        without = json.loads(job.read_text(encoding="utf-8")).get("without_transformers")
        return (bare if without else whole).run(job, cwd, log, env or {}, on_line)

    child.run = fork
    try:
        yield
    finally:
        child.run = run
        whole.close()
        bare.close()


def serve(asked: socket.socket, modules: Sequence[str]) -> None:
    """Import the modules, then fork a worker for each job that is asked for."""
    for name in modules:
        import_module(name)
    loaded = {name.partition(".")[0] for name in sys.modules}
    # An archive brings its own.
    assert "handlers" not in loaded
    assert ("transformers" in loaded) == any(name.startswith("transformers") for name in modules)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        message, given, _, _ = socket.recv_fds(asked, _LONGEST, 4)
        if not message:
            return
        if os.fork() == 0:
            asked.close()
            _keep(*json.loads(message), *given)
        for end in given:
            os.close(end)


def _keep(job: str, cwd: str, env: dict[str, str], stdin: int, stdout: int, stderr: int, status: int) -> NoReturn:
    """Fork the worker, and say what became of it."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if (worker := os.fork()) == 0:
        os.close(status)
        for number, end in enumerate((stdin, stdout, stderr)):
            os.dup2(end, number)
            os.close(end)
        os.chdir(cwd)
        os.environ.update(env)
        sys.argv[:] = ["pipeline.worker", job]
        import_module("pipeline.worker").main()
    for end in (stdin, stdout, stderr):
        os.close(end)
    _, ended = os.waitpid(worker, 0)
    os.write(status, str(os.waitstatus_to_exitcode(ended)).encode())
    os._exit(0)


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as _asked:
        serve(_asked, sys.argv[2:])
