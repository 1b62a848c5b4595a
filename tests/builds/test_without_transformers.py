"""TorchScript archives on a Python with torch and tokenizers, and without transformers: asked there, served there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

from mar_pipeline.answers.compare import differences
from mar_pipeline.serving.server import Server
from mar_pipeline.tasks import TASKS
from tests.support import ROOT
from tests.support.mar import Mar

pytestmark = pytest.mark.slow

INPUTS: dict[str, list[Any]] = {
    "seq_classification": [
        "The soup was cold.",
        {"text": "Grüße aus 北京 😀", "text_pair": "!"},
        {"text": "שלום \u202eעולם\u202c", "top_k": 2},
        "kind and good " * 400,
    ],
    "token_classification": [
        "Maria Lopez moved from Madrid to Berlin in March.",
        {"text": "Anna 👩‍👩‍👧 met James Carter.", "aggregation_strategy": "average"},
        "Call Daniel in London. " * 150,
    ],
    "question_answering": [
        {"question": "Who smiled?", "context": "The soup was cold, but Maria from Lisbon smiled."},
        {"question": "Who?", "context": "Tom works in Lisbon. " * 120, "top_k": 3, "handle_impossible_answer": True},
    ],
    "text_generation": [
        "Once upon a time",
        {"prompt": "مرحبا 😀", "parameters": {"max_new_tokens": 9, "return_full_text": True}},
        {"prompt": "The", "parameters": {"max_new_tokens": 20, "do_sample": True, "seed": 7, "stop": [","]}},
    ],
}
BAD: list[Any] = [{"surely_unknown": 1}, b'{"text": ', 5]


def requirements(*names: str) -> set[str]:
    """Distributions of this environment: those named, and what they declare to need, extras left out."""
    found: set[str] = set()
    pending = [name.lower() for name in names]
    while pending:
        name = pending.pop()
        if name not in found:
            found.add(name)
            needs = [Requirement(text) for text in distribution(name).requires or []]
            pending += [one.name.lower() for one in needs if one.marker is None or one.marker.evaluate({"extra": ""})]
    return found


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment that holds what `pip install torch tokenizers torchserve pyyaml` brings."""
    folder = tmp_path_factory.mktemp("bare") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    done = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True)
    packages = Path(done.stdout.strip())
    own = Path(sysconfig.get_path("purelib"))
    for name in requirements("torch", "tokenizers", "torchserve", "pyyaml"):
        for top in {file.parts[0] for file in distribution(name).files or []} - {"..", "__pycache__"}:
            if not (packages / top).exists():
                (packages / top).symlink_to(own / top)
    return python


@pytest.fixture(scope="module")
def expected(mar: Mar, built: dict[tuple[str, str], dict[str, Any]]) -> dict[str, list[Any]]:
    """What `mar run` answers here, by task."""
    found = {}
    for task, inputs in INPUTS.items():
        done = mar("run", built[task, "torchscript"]["path"], "--input", json.dumps(inputs))
        assert done.returncode == 0, done.stderr
        found[task] = json.loads(done.stdout)
    return found


def test_every_task_answers_where_transformers_is_not_installed(
    mar: Mar, built: dict[tuple[str, str], dict[str, Any]], bare: Path, expected: dict[str, list[Any]], tmp_path: Path
) -> None:
    jobs = []
    for task in TASKS:
        with zipfile.ZipFile(mar.folder / built[task, "torchscript"]["path"]) as archive:
            archive.extractall(tmp_path / task)
        settings = yaml.safe_load((tmp_path / task / "model-config.yaml").read_text(encoding="utf-8"))
        mixed = [BAD[0], *INPUTS[task], BAD[2], INPUTS[task]]
        batches = [*([one] for one in INPUTS[task]), mixed]
        jobs.append({"folder": str(tmp_path / task), "settings": settings, "batches": batches})
    done = subprocess.run(
        [str(bare), str(ROOT / "tests" / "support" / "bare_handler.py")],
        input=json.dumps(jobs),
        env={"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["importable"] == ["torch", "tokenizers"]
    for task, found in zip(TASKS, told["answers"], strict=True):
        *alone, mixed = found["replies"]
        first, *near, last, many = mixed
        assert not differences("", expected[task], [reply for (reply,) in alone], 1e-4)
        assert not differences("", expected[task], near, 1e-4)
        assert not differences("", expected[task], many, 1e-4)
        assert first["error"]["field"] == "surely_unknown"
        assert last["error"]["message"]
        assert found["statuses"] == [*({} for _ in alone), {"0": 400, str(len(mixed) - 2): 400}]


def test_a_torchserve_whose_workers_have_no_transformers_answers_the_same(
    mar: Mar, built: dict[tuple[str, str], dict[str, Any]], bare: Path, expected: dict[str, list[Any]]
) -> None:
    tasks = ("seq_classification", "text_generation")
    archives = [mar.folder / built[task, "torchscript"]["path"] for task in tasks]
    with Server(archives, python=bare) as server:
        server.wait_ready(timeout=100)
        assert server.pid is not None
        workers = workers_of(server.pid)
        assert len(workers) == len(tasks)
        for process in workers:
            command, environment = ((process / name).read_bytes().split(b"\0") for name in ("cmdline", "environ"))
            assert command[0] == os.fsencode(bare)
            paths = [one.partition(b"=")[2].split(b":") for one in environment if one.startswith(b"PYTHONPATH=")]
            assert not [one for path in paths for one in path if (Path(os.fsdecode(one)) / "transformers").exists()]
        for task in tasks:
            name = f"{task}-torchscript"
            for one, answer in zip(INPUTS[task], expected[task], strict=True):
                reply = server.client.predict(name, one)
                assert reply.status_code == 200, reply.text
                assert not differences("", answer, reply.json(), 1e-4)
            assert server.client.predict(name, BAD[0]).status_code == 400
            assert server.client.predict(name, BAD[1]).status_code == 400
            body = {"prompt": "a"} if task == "text_generation" else {"text": "a"}
            explained = server.client.predict(name, body, path="explanations")
            assert (explained.status_code, "save_mode: pretrained" in explained.text) == (501, True)
        assert [server.logs.deaths(name) for name in server.names] == [0, 0]


def workers_of(group: int) -> list[Path]:
    """The folders in /proc of a server's workers."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if os.getpgid(int(folder.name)) == group and b"model_service_worker" in (folder / "cmdline").read_bytes():
                found.append(folder)
        except OSError:
            continue
    return found
