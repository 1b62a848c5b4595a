"""`mar run --sandbox` and `mar check --run`: hostile archives are held, honest ones answer as ever."""

from __future__ import annotations

import itertools
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from mar_pipeline import __main__ as command
from tests.support import archiver, bwrap
from tests.support.mar import Mar, words

HANDLER = """
import ctypes, json, os, sys, time

def report(text):
    # In place of the worker: it does not know which one is the pipe to `mar`.
    for number in range(1, 20):
        try:
            os.write(number, text.encode() + b"\\n")
        except OSError:
            pass
    os._exit(0)

class Handler:
    def initialize(self, context):
        {initialize}

    def handle(self, data, context):
        {handle}
"""
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """A command on an archive whose handler has this code; its exit code, output and messages."""
    bwrap.on_path(monkeypatch)
    monkeypatch.setenv("MAR_CACHE", str(tmp_path / "cache"))

    number = itertools.count()

    def run(name: str, *words: str, initialize: str = "pass", handle: str = "return ['fine'] * len(data)") -> Any:
        code = HANDLER.format(initialize=initialize, handle=handle).encode()
        archive = archiver.make(tmp_path / f"made-{next(number)}", {"handler.py": code}, recorded=False)
        capsys.readouterr()
        exit_code = command.run([name, str(archive), *words])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return exit_code, out, err

    return run


def answer(run: Run, code: str) -> Any:
    """What a handler answers in the sandbox."""
    exit_code, out, err = run("run", "--sandbox", "--input", "{}", "--json", handle=f"return [{code}]")
    assert exit_code == 0, err
    return json.loads(out)


def test_a_handler_sees_no_secret_and_reaches_nothing(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "id_rsa").write_text("s3cr3t")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HF_TOKEN", "s3cr3t")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        key = str(tmp_path / ".ssh" / "id_rsa")
        code = (
            f"[os.path.exists({key!r}), 's3cr3t' in str(dict(os.environ)), "
            f"__import__('socket').socket().connect_ex(('127.0.0.1', {port})) == 0, "
            "os.access(os.getcwd(), os.W_OK)]"
        )
        assert answer(run, code) == [False] * 4


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("os._exit(3)", "failed in the sandbox"),
        ("os.kill(os.getpid(), 9)", "failed in the sandbox"),
        ("ctypes.string_at(0)", "failed in the sandbox"),
        ("raise ValueError('no weights')", "no weights"),
        ("bytearray(1 << 50)", "MemoryError"),
        ("time.sleep(600)", "took longer than 6 seconds"),
        (r"""report('{}\n[]\nx\n{"result": 1}')""", "no message: {}"),
        (r"""report('{"result": {"single": []}}')""", "a result of its own"),
        (r"""report('{"error": []}')""", "no message"),
        (r"""report('{"error": {"code": [], "traceback": 1}}')""", "no message"),
        (r"""report('{"progress": 1}\n' + '[' * 99999)""", "no message"),
    ],
    ids=["exits", "killed", "crashes", "raises", "memory", "hangs", "result", "short", "error", "code", "garbage"],
)
def test_a_handler_that_fails_is_said_in_three_lines(run: Run, code: str, said: str) -> None:
    words = ["--timeout", "6"] if "sleep" in code else []
    exit_code, out, err = run("run", "--sandbox", "--input", "{}", *words, initialize=code)
    assert exit_code in (2, 3)
    assert out == ""
    assert said in err
    assert len(err[err.index("error: ") :].splitlines()) <= 3


@pytest.mark.parametrize(
    ("where", "code", "said"),
    [
        ("initialize", "raise ValueError('no weights')", r"m failed: ValueError: no weights (handler.py:15)."),
        ("handle", "raise RuntimeError('a\\x1b[31mb\\nc')", "m failed: c (handler.py:18)."),
        ("handle", "os._exit(3)", "m failed: the worker ended with exit code 3"),
    ],
    ids=["loads", "answers", "exits"],
)
@pytest.mark.parametrize("name", ["run", "explain"])
@pytest.mark.usefixtures("run")
def test_a_changed_handler_that_fails_is_bad_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, where: str, code: str, said: str
) -> None:
    source = HANDLER.format(**{"initialize": "pass", "handle": "pass", where: code}).encode()
    archive = archiver.make(tmp_path / "ours", {"handler.py": source})
    capsys.readouterr()
    assert command.run([name, str(archive), "--input", "{}"]) == 2
    err = capsys.readouterr().err
    assert said in err.replace(str(archive), "m")
    assert "Traceback" not in err
    assert len(err[err.index("error: ") :].splitlines()) == 3


@pytest.mark.parametrize(
    "given",
    ["'fine'", "[]", "{'words': 3}", "{'words': [{}]}", "{'words': [{'field': 'text', 'start': 'x'}]}", "None"],
)
@pytest.mark.usefixtures("run")
def test_an_explanation_in_another_form_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], given: str
) -> None:
    code = HANDLER.format(initialize="pass", handle=f"return [{given}]").encode()
    archive = archiver.make(tmp_path / "ours", {"handler.py": code})
    assert command.run(["explain", str(archive), "--sandbox", "--input", "a"]) == 2
    assert "answered in another form than this program's handlers" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("handle", "said"),
    [
        ("raise KeyError('data')", "KeyError"),
        ("return [{1, 2}] * len(data)", "not JSON"),
        ("return [float('nan')] * len(data)", "answers its sample 1 with NaN or Infinity, which is not JSON"),
        ("return []", "0 replies to 1 request"),
        ("os._exit(0)", "does not run"),
        ("context.set_response_status(400, 'no', 0)\n        return ['no']", "that the handler refuses (400)"),
    ],
    ids=["raises", "a set", "nan", "too few", "exits", "refuses"],
)
def test_check_with_run_finds_a_handler_that_does_not_answer(run: Run, handle: str, said: str) -> None:
    exit_code, out, _err = run("check", "--run", "--json", handle=handle)
    result = json.loads(out)
    (finding, *_) = [finding for finding in result["findings"] if said in finding["what"]]
    assert finding["level"] == "error"
    assert (exit_code, result["ok"]) == (2, False)


def test_check_with_run_has_nothing_to_say_of_an_honest_handler(run: Run) -> None:
    before = json.loads(run("check", "--json")[1])
    after = json.loads(run("check", "--run", "--json")[1])
    assert {**after, "path": ""} == {**before, "path": ""}


def test_limits_without_a_sandbox_are_refused(run: Run) -> None:
    assert "--memory is a limit of the sandbox" in run("run", "--memory", "1GB")[2]
    assert "Give --run too" in run("check", "--timeout", "3")[2]


@pytest.mark.parametrize(
    "words",
    [["--memory", "much"], ["--memory", "9" * 400], ["--memory", "1MB"], ["--timeout", "-1"], ["--timeout", "nan"]],
)
def test_limits_that_are_none_are_refused(run: Run, words: list[str]) -> None:
    exit_code, _out, err = run("run", "--sandbox", *words)
    assert exit_code == 2
    assert f"error: {words[0]}" in err


def test_without_bubblewrap_nothing_runs(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    ran = tmp_path / "ran"
    for name, option in (("run", "--sandbox"), ("check", "--run")):
        exit_code, out, err = run(name, option, initialize=f"open({str(ran)!r}, 'w')")
        assert (exit_code, out) == (2, "")
        assert "apt-get install bubblewrap" in err
    assert not ran.exists()


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["pretrained", "torchscript"])
def test_an_honest_archive_answers_the_same(mar: Mar, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bwrap.on_path(monkeypatch)
    (built,) = mar.build(*words("text_generation", mode))
    path = built["path"]
    plain, held = mar("run", path, "--json"), mar("run", path, "--json", "--sandbox")
    assert held.returncode == 0, held.stderr
    assert held.stdout == plain.stdout
    assert mar("check", path, "--run").returncode == 0


@pytest.mark.slow
def test_an_explanation_is_the_same(mar: Mar, fresh_mar: Mar, monkeypatch: pytest.MonkeyPatch) -> None:
    bwrap.on_path(monkeypatch)
    pytest.importorskip("captum")
    (built,) = mar.build(*words("seq_classification", "pretrained"))
    asked = ["explain", built["path"], "--input", "A dull film, but well acted.", "--json"]
    plain, held = mar(*asked), fresh_mar(*asked, "--sandbox")
    assert held.returncode == 0, held.stderr
    assert held.stdout == plain.stdout


def of(folder: Path) -> list[str]:
    """The processes that have a folder in their command line."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if str(folder).encode() in file.read_bytes():
                found.append(file.parent.name)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["killed", "interrupted"])
def test_what_is_in_the_sandbox_ends_with_mar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    bwrap.on_path(monkeypatch)
    code = HANDLER.format(initialize="os.fork() or os.setsid(); time.sleep(600)", handle="return data").encode()
    archive = archiver.make(tmp_path / "made", {"handler.py": code}, recorded=False)
    words = [sys.executable, "-m", "mar_pipeline", "run", archive, "--sandbox", "--cache", tmp_path / "cache"]
    mar = subprocess.Popen(words, cwd=tmp_path)
    # This command, bubblewrap's two processes, the worker, and its child.
    assert until(lambda: len(of(tmp_path)) == 5, 120)
    mar.send_signal(number)
    mar.wait()
    assert until(lambda: not of(tmp_path), 20)


def until(met: Callable[[], bool], seconds: float) -> bool:
    """Whether a condition is met within a time."""
    end = time.monotonic() + seconds
    while not met():
        if time.monotonic() > end:
            return False
        time.sleep(0.2)
    return True
