"""Diagnoses from logs as TorchServe 0.12 writes them (shortened)."""

from __future__ import annotations

import re

import pytest

from mar_pipeline.serving import diagnosis

TIME = "2026-11-24T12:07:47,172"
STOPPED = (
    TIME + " [DEBUG] W-9000-{0}_1.0 org.pytorch.serve.wlm.WorkerThread - "
    "W-9000-{0}_1.0 State change WORKER_STARTED -> WORKER_STOPPED\n"
)


def printed(text: str, name: str = "m", stream: str = "stdout") -> str:
    return "".join(f"{TIME} [INFO ] W-9000-{name}_1.0-{stream} MODEL_LOG - {line}\n" for line in text.splitlines())


def raised(line: str) -> str:
    return f"Traceback (most recent call last):\n  File x\n{line}"


CHAIN = """Listening on port: /tmp/.ts.sock.9000
Backend worker process died.
Traceback (most recent call last):
  File "/tmp/models/0f/m.py", line 1, in <module>
    import captum
ModuleNotFoundError: No module named 'captum'

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "/site-packages/ts/model_loader.py", line 110, in load
ModuleNotFoundError: No module named 'ts.torch_handler.m'
"""
RAISED_FROM = """Traceback (most recent call last):
  File "a.py", line 1, in f
KeyError: 'weights'

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "a.py", line 3, in g
safetensors_rust.SafetensorError: Error while deserializing header
"""
ANSWERED = """Load model m cpu OOM, exception no
Traceback (most recent call last):
  File "m.py", line 2, in initialize
MemoryError: no
Backend worker process died.
Traceback (most recent call last):
  File "model_service_worker.py", line 201, in handle_connection
RuntimeError: 507 - System out of memory
"""


@pytest.mark.parametrize(
    ("text", "line", "why"),
    [
        (CHAIN, "ModuleNotFoundError: No module named 'captum'", "imports captum"),
        (RAISED_FROM, "safetensors_rust.SafetensorError: Error while deserializing header", "damaged"),
        (ANSWERED, "MemoryError: no", "too little free memory"),
        (raised("RuntimeError: CUDA out of memory. Tried"), None, "GPU's free"),
        (raised("AssertionError: Torch not compiled with CUDA enabled"), None, "a GPU, which"),
        (raised("OSError: [Errno 28] No space left on device"), None, "disk is full"),
        (
            raised("OSError: We couldn't connect to 'https://huggingface.co' to load the files"),
            None,
            "without network access",
        ),
        (raised("ModuleNotFoundError: No module named '0f78050d8f1f4800800f6f541ef9d985'"), None, "has no handler"),
        (raised("MyError"), "MyError", "raised this"),
    ],
)
def test_the_exception_that_matters_is_found_with_its_usual_cause(text: str, line: str | None, why: str) -> None:
    found = diagnosis.explain(STOPPED.format("m"), printed(text), "m")
    if line is not None:
        assert found.line == line
    assert why in found.why
    assert found.fix
    assert found.certain


def test_only_the_models_own_workers_count() -> None:
    log = STOPPED.format("other") + STOPPED.format("m_2") + STOPPED.format("mm")
    assert diagnosis.deaths(log, "m") == 0
    assert diagnosis.deaths(log, "m_2") == 1
    assert diagnosis.printed(printed("mine") + printed("not mine", "other"), "m") == "mine"


def test_a_death_that_is_logged_twice_is_one() -> None:
    assert diagnosis.deaths(STOPPED.format("m") * 2, "m") == 1
    assert diagnosis.deaths(STOPPED.format("m") + STOPPED.format("m").replace(TIME, TIME[:-3] + "999"), "m") == 2


def test_an_attempt_that_has_just_begun_does_not_hide_the_last() -> None:
    found = diagnosis.explain("", printed(CHAIN + "s_name_part0=/tmp/.ts.sock\nListening on port: 9000\n"), "m")
    assert found.line.endswith("'captum'")
    assert "s_name_part0" not in found.details


def test_what_a_worker_writes_to_standard_error_counts_too() -> None:
    found = diagnosis.explain(
        "",
        printed("Traceback (most recent call last):\n  x\nModuleNotFoundError: No module named 'yaml'", "m", "stderr"),
        "m",
    )
    assert "imports yaml" in found.why


def test_silence_is_not_certain_and_a_time_out_is() -> None:
    assert not diagnosis.explain(STOPPED.format("m"), printed("Torch worker started."), "m").certain
    slow = (
        f"{TIME} [ERROR] W-9000-m_1.0 org.pytorch.serve.wlm.WorkerThread - Backend worker error\n"
        "org.pytorch.serve.wlm.WorkerInitializationException: Backend worker did not respond in given time\n"
        "\tat org.pytorch.serve.wlm.WorkerThread.run(WorkerThread.java:269)\n"
    )
    found = diagnosis.explain(slow, printed("Torch worker started."), "m")
    assert found.certain
    assert "startupTimeout" in found.why


@pytest.mark.parametrize(
    ("trace", "line", "fix"),
    [
        ("java.io.EOFException: Unexpected end of ZLIB input stream", "EOFException: Unexpected end", "Copy it again"),
        (
            "org.pytorch.serve.archive.model.ModelNotFoundException: Model not found at: m.mar",
            "Model not found",
            "mar build",
        ),
        ("java.io.IOException: No space left on device", "No space", "TMPDIR"),
    ],
)
def test_a_refused_archive_says_why(trace: str, line: str, fix: str) -> None:
    log = f"{TIME} [WARN ] main org.pytorch.serve.ModelServer - Failed to load model: m.mar\n{trace}\n\tat java\n"
    found = diagnosis.refusal(log, "m.mar")
    assert found is not None
    assert line in found.line
    assert fix in found.fix
    assert diagnosis.refusal(log, "other.mar") is None


@pytest.mark.parametrize(
    ("output", "code", "what"),
    [
        (
            "java.io.IOException: Failed to bind to address: http://127.0.0.1:23838\n\tat org.pytorch.serve\n"
            "Caused by: io.netty.channel.unix.Errors$NativeIoException: bind(..) failed: Address already in use\n",
            1,
            r"port that it needs is in use \(http://127\.0\.0\.1:23838\)",
        ),
        ("java.lang.OutOfMemoryError: Java heap space\n", 1, "out of memory"),
        ("", -9, "out of memory, or was killed"),
        ("Error: Could not find or load main class X\n\tat y\n", 1, r"ended by itself, with exit code 1"),
    ],
)
def test_a_server_that_ends_says_why(output: str, code: int, what: str) -> None:
    found = diagnosis.end(output, code)
    assert re.search(what, found[0])
    assert all(found)


def test_a_server_that_ends_shows_its_last_words() -> None:
    assert diagnosis.end("one\nError: no main class\n\tat y\n", 1)[1] == "Error: no main class"
