"""Workers that are forked from one server: each is still a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from mar_pipeline.errors import InputError, StageError
from mar_pipeline.workers import client, warm
from mar_pipeline.workers.client import WorkerCrash, work
from tests.support.mar import Mar

pytestmark = pytest.mark.slow

HANDLER = """
import os, sys

class Probe:
    def initialize(self, context):
        pass

    def handle(self, data, context):
        return [eval(one["body"]) for one in data]
"""


def ask(scratch: Path, expression: str, *, transformers: bool = True) -> Any:
    """The value of an expression in a worker: its archive's handler evaluates it."""
    folder = scratch / f"model-{len(list(scratch.glob('model-*')))}-{hash(expression) % 1000}"
    (folder / "MAR-INF").mkdir(parents=True)
    (folder / "MAR-INF" / "MANIFEST.json").write_text('{"model": {"modelName": "probe", "handler": "probe.py"}}')
    (folder / "probe.py").write_text(HANDLER)
    job = {"folder": str(folder), "requests": [expression], "without_transformers": not transformers}
    return work("answer", job, scratch=scratch)["single"][0]


def server() -> psutil.Process:
    """This process's server, which has served."""
    assert warm._server is not None
    return psutil.Process(warm._server._process.pid)


def test_a_worker_returns_its_result_its_error_and_its_traceback(tmp_path: Path) -> None:
    assert ask(tmp_path, "1 + 1") == 2
    with pytest.raises(InputError, match="cannot load the tokenizer"):
        work("tokenizer", {"checkpoint": str(tmp_path), "out": str(tmp_path)}, scratch=tmp_path)
    with pytest.raises(WorkerCrash, match="KeyError"):
        work("eager", {}, scratch=tmp_path)


def test_torch_is_imported_once_and_each_job_has_a_process_of_its_own(tmp_path: Path) -> None:
    pids = [ask(tmp_path, "os.getpid()", transformers=needed) for needed in (True, False, True)]
    assert len({*pids, os.getpid(), server().pid}) == 5
    # Imported by the one that they are forked from: its children share the pages.
    assert ask(tmp_path, "os.getppid()", transformers=False) == server().pid
    parent = ask(tmp_path, "os.getppid()")
    assert psutil.Process(parent).ppid() == server().pid
    assert ask(tmp_path, "os.getppid()") == parent


@pytest.mark.parametrize("needed", [True, False], ids=["with transformers", "without"])
def test_a_job_that_does_without_transformers_never_sees_it(tmp_path: Path, needed: bool) -> None:
    loaded = ask(tmp_path, "any(name.startswith('transformers.') for name in sys.modules)", transformers=needed)
    assert loaded is needed


def test_a_worker_has_the_folder_and_environment_of_its_job_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(tmp_path, "0")
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not for workers")
    seen = ask(tmp_path, "dict(os.environ)")
    assert {**seen, "HF_MODULES_CACHE": ""} == client.environment({"HF_MODULES_CACHE": ""})
    cache = "__import__('transformers').dynamic_module_utils.HF_MODULES_CACHE"
    first, second = ask(tmp_path, cache), ask(tmp_path, cache)
    assert Path(first).parent.parent == Path(second).parent.parent == tmp_path
    assert first != second
    assert ask(tmp_path, "os.getsid(0) == os.getpid()")
    # The handler's own folder comes first, and nothing of where the server was started.
    assert str(Path.cwd()) not in ask(tmp_path, "[p for p in sys.path if p not in os.environ['PYTHONPATH']]")


def test_a_worker_uses_as_many_threads_as_a_program_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(warm, "_server", None)
    code = "import torch; print(torch.get_num_threads())"
    alone = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    try:
        assert ask(tmp_path, "__import__('torch').get_num_threads()") == int(alone.stdout)
    finally:
        warm.close()


def test_a_worker_that_is_killed_takes_no_other_with_it(tmp_path: Path) -> None:
    ask(tmp_path, "0")
    with ThreadPoolExecutor(2) as pool:
        other = pool.submit(ask, tmp_path, "__import__('time').sleep(2) or 'whole'")
        with pytest.raises(StageError, match=r"ended by SIGKILL while [a-z]+ing "):
            ask(tmp_path, "os.kill(os.getpid(), 9)")
        assert other.result() == "whole"
    assert ask(tmp_path, "'next'") == "next"


def test_where_the_server_is_killed_a_running_worker_ends_its_job_and_the_next_gets_another_server(
    tmp_path: Path,
) -> None:
    ask(tmp_path, "0", transformers=False)
    first = server()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(ask, tmp_path, "__import__('time').sleep(2) or 'whole'", transformers=False)
        time.sleep(1)
        first.kill()
        assert running.result() == "whole"
    # The first job after it finds out, and runs as a program of its own.
    assert ask(tmp_path, "1 + 1", transformers=False) == 2
    assert ask(tmp_path, "os.getppid()", transformers=False) == server().pid != first.pid


def test_an_environment_too_long_for_a_message_makes_a_worker_a_program_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(tmp_path, "0", transformers=False)
    for number in range(3):
        monkeypatch.setenv(f"OMP_LONG_{number}", "x" * 50_000)
    assert ask(tmp_path, "os.environ['OMP_LONG_2'] == 50_000 * 'x' and os.getppid()", transformers=False) == os.getpid()


def test_what_a_worker_took_is_given_back(tmp_path: Path) -> None:
    def taken() -> int:
        return sum(one.memory_info().rss for one in (server(), *server().children(recursive=True)))

    ask(tmp_path, "0")
    before = taken()
    assert ask(tmp_path, "len(bytes(10**9))") == 10**9
    assert taken() - before < 50e6


def test_a_package_that_starts_a_thread_when_it_is_imported_makes_workers_programs_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "site").mkdir()
    code = "import threading, time\nthreading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n"
    (tmp_path / "site" / "sitecustomize.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    monkeypatch.setattr(warm, "_server", None)
    monkeypatch.setattr(warm, "_possible", True)
    assert ask(tmp_path, "os.getppid()", transformers=False) == os.getpid()
    assert ask(tmp_path, "os.getppid()", transformers=False) == os.getpid()
    assert not warm._possible
    assert warm._server is None


def test_all_configs_of_a_build_share_one_server_which_ends_with_the_command(fresh_mar: Mar, bert: Path) -> None:
    for name in ("one", "two"):
        handler = {"mode": "sequence_classification", "model_name": str(bert)}
        text = {"handler": handler, "archive": {"name": name}}
        (fresh_mar.folder / f"{name}.yaml").write_text(json.dumps(text))
    words = [sys.executable, "-m", "mar_pipeline", "build", "one.yaml", "two.yaml"]
    build = psutil.Popen(words, cwd=fresh_mar.folder, env={**os.environ, **fresh_mar.env}, stderr=subprocess.DEVNULL)
    seen: set[psutil.Process] = set()
    while build.poll() is None:
        seen |= set(build.children())
        time.sleep(0.05)
    assert build.returncode == 0
    assert len(seen) == 1
    _, alive = psutil.wait_procs(seen, timeout=5)
    assert not alive


@pytest.mark.parametrize(
    "number",
    [signal.SIGKILL, *(pytest.param(number, marks=pytest.mark.long) for number in (signal.SIGTERM, signal.SIGINT))],
    ids=lambda number: number.name,
)
def test_the_server_and_its_workers_end_when_the_command_is_killed(
    fresh_mar: Mar, bert: Path, number: signal.Signals
) -> None:
    words = [sys.executable, "-m", "mar_pipeline", "build", "--task", "seq_classification", "--model", str(bert)]
    env = {**os.environ, **fresh_mar.env}
    build = psutil.Popen([*words, "--out", str(fresh_mar.out)], env=env, stderr=subprocess.DEVNULL)
    below: list[psutil.Process] = []
    while build.poll() is None and len(below) < 3:
        below = build.children(recursive=True)
    assert len(below) >= 3
    build.send_signal(number)
    build.wait(60)
    _, alive = psutil.wait_procs(below, timeout=10)
    assert not alive
