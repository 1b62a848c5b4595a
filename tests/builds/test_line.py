"""The whole line, on the starters: every task, two save modes, one real TorchServe."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from mar_pipeline.tasks import TASKS
from tests.support import ROOT
from tests.support.mar import KINDS, MODES, Mar, words

pytestmark = pytest.mark.slow

STAGES = ["download", "serialize", "handler", "archive", "verify", "model_store"]


def python(mar: Mar, code: str) -> subprocess.CompletedProcess[str]:
    """Run `code` in a process of its own, with `mar`'s cache."""
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**mar.env, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("kind", KINDS, ids="-".join)
def test_every_task_builds_and_verifies_in_both_modes(
    mar: Mar, built: dict[tuple[str, str], dict[str, Any]], kind: tuple[str, str]
) -> None:
    archive = built[kind]
    data = Path(archive["path"]).read_bytes()
    assert archive["verified"] is True
    assert archive["size"] == len(data)
    assert archive["sha256"] == hashlib.sha256(data).hexdigest()
    assert [stage["stage"] for stage in archive["stages"]] == STAGES
    report = json.loads((mar.out / "reports" / f"{archive['name']}.json").read_text())
    assert report["sha256"] == archive["sha256"]
    assert report["verified"] is True
    assert 0 <= report["largest_difference"] <= 1e-4


@pytest.mark.parametrize("kind", KINDS, ids="-".join)
def test_the_archive_holds_what_it_says_and_nothing_of_the_builders_machine(
    mar: Mar, built: dict[tuple[str, str], dict[str, Any]], kind: tuple[str, str]
) -> None:
    task, mode = kind
    with zipfile.ZipFile(built[kind]["path"]) as archive:
        assert archive.testzip() is None
        names = set(archive.namelist())
        files = {name: archive.read(name) for name in names}
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
    weights = {"model.safetensors"} if mode == "pretrained" else {"model.safetensors", "model.pt", "graph.json"}
    assert weights | {"config.json", "tokenizer.json", "tokenizer_config.json"} <= names
    assert {f"{task}.py", "handlers/base.py", "model-config.yaml", "samples.json", "schema.json"} <= names
    assert ("index_to_name.json" in names) == TASKS[task].labelled
    manifest = json.loads(files["MAR-INF/MANIFEST.json"])["model"]
    assert (manifest["configFile"], manifest["handler"]) == ("model-config.yaml", f"{task}.py")
    settings = yaml.safe_load(files["model-config.yaml"])
    assert settings["handler"]["save_mode"] == mode
    assert settings["batchSize"] == 8
    provenance = json.loads(files["provenance.json"])
    told = provenance["files"]
    assert set(told) | {"provenance.json", "MAR-INF/MANIFEST.json"} == names
    assert {name: hashlib.sha256(files[name]).hexdigest() for name in told} == told
    assert provenance["source"] == {"kind": "starter", "name": task, "license": "Apache-2.0"}
    texts = [data for name, data in files.items() if not name.endswith((".pt", ".safetensors"))]
    assert not [data for data in texts if str(mar.folder).encode() in data]


def test_a_real_torchserve_answers_as_the_handler_does_here(
    mar: Mar, built: dict[tuple[str, str], dict[str, Any]]
) -> None:
    assert len(built) == 2 * len([*(ROOT / "configs").glob("*.yaml")])
    done = mar("smoke", "--out", mar.out, "--json")
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)["archives"]
    assert {result["name"] for result in results} == {f"{task}-{mode}" for task, mode in KINDS}
    assert all(result["requests"] >= 9 for result in results)


def test_a_second_build_is_all_hits_and_imports_no_torch(
    mar: Mar, built: dict[tuple[str, str], dict[str, Any]]
) -> None:
    kind = KINDS[1]
    code = (
        "import sys; from mar_pipeline.__main__ import run\n"
        f"code = run(['build', *{words(*kind)!r}, '--out', {str(mar.out)!r}, '--json'])\n"
        "loaded = {'torch', 'transformers', 'huggingface_hub', 'numpy'} & sys.modules.keys()\n"
        "sys.exit(code or (str(loaded) if loaded else 0))"
    )
    done = python(mar, code)
    assert done.returncode == 0, done.stderr
    (archive,) = json.loads(done.stdout)["archives"]
    assert [stage["cached"] for stage in archive["stages"]] == [True] * 6
    assert archive["sha256"] == built[kind]["sha256"]


@pytest.mark.parametrize(
    ("mode", "again"),
    [
        ("pretrained", ["handler", "archive", "verify", "model_store"]),
        ("torchscript", ["serialize", "handler", "archive", "verify", "model_store"]),
    ],
)
def test_another_max_length_runs_what_depends_on_it_and_says_why(
    mar: Mar, built: dict[tuple[str, str], dict[str, Any]], mode: str, again: list[str]
) -> None:
    assert built
    stages = mar.plan(*words("seq_classification", mode), "--set", "handler.max_length=40")
    assert [name for name, stage in stages.items() if not stage["cached"]] == again
    (reason,) = stages[again[0]]["reasons"]
    assert re.fullmatch(r"(handler\.)?max_length \d+ -> 40", reason)


def test_other_server_settings_leave_the_trace_alone(mar: Mar, built: dict[tuple[str, str], dict[str, Any]]) -> None:
    assert built
    stages = mar.plan(*words("seq_classification", "torchscript"), "--set", "batchSize=3")
    assert stages["serialize"]["cached"]
    assert stages["handler"]["reasons"] == ["batchSize 8 -> 3"]


def test_a_forced_stage_runs_and_the_same_result_disturbs_nothing_after_it(
    mar: Mar, built: dict[tuple[str, str], dict[str, Any]]
) -> None:
    kind = ("seq_classification", "pretrained")
    (archive,) = mar.build(*words(*kind), "--force", "handler")
    assert [stage["stage"] for stage in archive["stages"] if not stage["cached"]] == ["handler"]
    assert archive["sha256"] == built[kind]["sha256"]


@pytest.mark.parametrize("mode", MODES)
def test_run_answers_as_transformers_pipeline_does(
    mar: Mar, built: dict[tuple[str, str], dict[str, Any]], mode: str
) -> None:
    from transformers import pipeline

    folder = ROOT / "pipeline" / "starters" / "seq_classification"
    texts = ["The pasta was cold and the waiter rude.", "What a lovely walk by the river we had!", "😀 ¿qué? العربية"]
    found = json.loads(mar("run", built["seq_classification", mode]["path"], "--input", json.dumps(texts)).stdout)
    expected = pipeline("text-classification", model=str(folder))(texts)
    assert [answer["label"] for answer in found] == [answer["label"] for answer in expected]
    assert [answer["score"] for answer in found] == pytest.approx([answer["score"] for answer in expected], abs=1e-5)


def test_the_sums_are_those_of_sha256sum(mar: Mar, built: dict[tuple[str, str], dict[str, Any]]) -> None:
    assert built
    done = subprocess.run(
        ["sha256sum", "--check", "SHA256SUMS"], cwd=mar.out, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert done.stdout.count(": OK") == 8


def test_inspect_shows_the_archive(mar: Mar, built: dict[tuple[str, str], dict[str, Any]]) -> None:
    done = mar("inspect", built["token_classification", "torchscript"]["path"])
    assert done.returncode == 0
    assert "model.pt" in done.stdout
    assert "starter:token_classification" in done.stdout
    assert "PER" in done.stdout


@pytest.mark.parametrize("form", ["default", "tgz", "no-archive"])
def test_the_other_formats_answer_too(
    mar: Mar, built: dict[tuple[str, str], dict[str, Any]], form: str, tmp_path: Path
) -> None:
    assert built
    setting = ("--task", "seq_classification", "--set", f"archive.format={form}", "--set", "archive.name=other")
    (archive,) = json.loads(mar("build", *setting, "--out", tmp_path, "--json").stdout)["archives"]
    answer = json.loads(mar("run", archive["path"], "--input", "Lovely!").stdout)
    assert answer["label"] in ("negative", "positive")
    assert archive["size"] > 100_000


def test_a_changed_handler_is_caught_by_the_gate(mar: Mar, built: dict[tuple[str, str], dict[str, Any]]) -> None:
    # Labels swapped in the archive, as a wrong index_to_name.json would have it: nothing else notices.
    assert built
    code = (
        "import sys; from mar_pipeline.builder import resolve; from mar_pipeline.builder.stages import handler\n"
        "names = resolve.labels\n"
        "class Swapped:\n"
        "    def __getattr__(self, name): return getattr(resolve, name)\n"
        "    def labels(self, build): return dict(enumerate(reversed(names(build).values())))\n"
        "handler.resolve = Swapped()\n"
        "from mar_pipeline.__main__ import run\n"
        "words = ['build', '--task', 'seq_classification', '--set', 'archive.name=swapped']\n"
        f"sys.exit(run([*words, '--out', {str(mar.out / 'x')!r}]))"
    )
    done = python(mar, code)
    assert done.returncode == 4, done.stderr
    assert "original model" in done.stderr
    assert not list((mar.out / "x").rglob("*.mar"))
