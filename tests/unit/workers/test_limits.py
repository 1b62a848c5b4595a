"""A worker that takes too long, or too much memory, is ended with all its children, and a sentence says so."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from mar_pipeline.errors import InputError, StageError
from mar_pipeline.workers import client, limits, warm, worker
from mar_pipeline.workers.bounded import bounded
from mar_pipeline.workers.limits import Limits

SAY = 'import json, sys\nprint(json.dumps({"progress": ["loading the model", 0, None]}), flush=True)\n'


def work(folder: Path, code: str, allowed: Limits, op: str = "save") -> Any:
    """A worker that runs this code."""
    script = folder / "script.py"
    script.write_text(SAY + code)
    return client.work(op, {}, scratch=folder / "scratch", script=script, limits=allowed)


def test_a_worker_that_takes_too_long_is_ended_with_its_children(tmp_path: Path) -> None:
    code = (
        "import subprocess, pathlib, time\n"
        "child = subprocess.Popen(['sleep', '600'])\n"
        f"pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(child.pid))\ntime.sleep(600)"
    )
    began = time.monotonic()
    with pytest.raises(StageError) as caught:
        work(tmp_path, code, Limits(seconds=2, advice="Give it more time."))
    assert time.monotonic() - began < 60
    assert re.fullmatch(r"The worker was ended after \d+ s while loading the model\.", caught.value.what)
    assert caught.value.fix == "Give it more time."
    child = int((tmp_path / "pid").read_text())
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE


def test_a_worker_that_takes_too_much_memory_is_ended(tmp_path: Path) -> None:
    code = "import time\nkept = []\nwhile True:\n    kept.append(bytearray(10**7))\n    time.sleep(0.01)"
    with pytest.raises(StageError, match=r"ended with .* MB of memory while loading the model") as caught:
        work(tmp_path, code, Limits(memory=300 * 10**6))
    assert "300.0 MB" in caught.value.why


def test_a_file_that_is_mapped_is_no_memory_of_the_worker(tmp_path: Path) -> None:
    with (tmp_path / "weights").open("wb") as file:
        file.truncate(4 * 10**8)
    code = (
        f"import mmap\nfile = open({str(tmp_path / 'weights')!r}, 'rb')\n"
        "seen = sum(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)[::4096])\n"
        'import time\ntime.sleep(0.5)\nprint(json.dumps({"result": seen}))'
    )
    assert work(tmp_path, code, Limits(memory=200 * 10**6)) == 0


def test_the_limits_grow_with_the_model_and_end_at_the_machines_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "machine_memory", lambda: 10**12)
    small, large = Limits.of(10**6), Limits.of(10**10)
    assert small.seconds is not None
    assert 1800 <= small.seconds < 1801
    assert large.seconds == pytest.approx(3000)
    assert small.memory == 16 * 10**9 + 16 * 10**6
    assert large.memory == 176 * 10**9
    assert Limits.of(10**12).memory == 9 * 10**11
    assert Limits.of(10**6, 5).seconds == 5
    assert Limits.of(10**6, 0).seconds is None
    assert Limits.of(10**6, 5).after(3).seconds == 2
    assert Limits.of(10**6, 5).after(9).seconds == 0


def test_the_machines_memory_is_what_the_system_says() -> None:
    whole = psutil.virtual_memory().total
    assert 0 < limits.machine_memory() <= whole * 1.01


@pytest.mark.parametrize(("op", "error"), [("tokenizer", InputError), ("samples", InputError), ("save", StageError)])
def test_an_abort_is_bad_input_where_only_a_tokenizer_is_read(op: str, error: type[Exception], tmp_path: Path) -> None:
    with pytest.raises(error, match="SIGABRT"):
        work(tmp_path, "import os\nos.abort()", Limits(), op)


def test_what_takes_longer_than_it_may_ends_the_worker_even_in_native_code(tmp_path: Path) -> None:
    code = (
        "from mar_pipeline.workers.bounded import bounded\nimport re\n"
        "with bounded(1):\n    re.fullmatch('(a|aa)+$', 'a' * 200 + 'b')"
    )
    script = tmp_path / "script.py"
    script.write_text(SAY + code)
    env = {"PYTHONPATH": os.pathsep.join(sys.path)}
    with pytest.raises(InputError, match="the worker took too long while loading the model"):
        client.work("save", {}, scratch=tmp_path / "scratch", script=script, env=env)


def test_memory_beyond_the_bound_is_an_error_and_the_bound_ends() -> None:
    code = (
        "from mar_pipeline.workers.bounded import bounded\n"
        "try:\n    with bounded(10, 100 << 20):\n        b'x' * (200 << 20)\n"
        "except MemoryError:\n    print(len(b'x' * (200 << 20)))"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert int(subprocess.check_output([sys.executable, "-c", code], env=env)) == 200 << 20
    with bounded(10):
        pass


class PanicException(BaseException):
    """As PyO3 has it: no Exception."""


def test_panics_and_a_lack_of_memory_have_a_sentence() -> None:
    told = worker._as_message(PanicException("index out of bounds"), {"op": "tokenizer"})
    assert told["code"] == 2
    assert "index out of bounds" in told["what"]
    for error in (MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried ...")):
        told = worker._as_message(error, {"op": "save"})
        assert told["code"] == 3
        assert told["what"] == "There is not enough memory for the model."


@pytest.mark.parametrize("line", ["no json", "5", "[" * 100_000, "x" * 5000])
def test_what_is_no_message_of_a_worker_is_a_failed_stage(line: str, tmp_path: Path) -> None:
    with pytest.raises(StageError, match="The worker wrote something that is no message: "):
        work(tmp_path, f"print({line!r}, flush=True)", Limits())


def test_a_line_without_an_end_is_not_read_into_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm, "LONGEST_LINE", 1000)
    with pytest.raises(StageError, match="The worker wrote something that is no message: xxx"):
        work(tmp_path, "while True:\n    sys.stdout.write('x' * 100)", Limits(seconds=60))
