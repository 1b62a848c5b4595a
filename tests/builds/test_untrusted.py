"""Checkpoints that would read files of whoever builds, or run code, on both lines of transformers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.support import ROOT
from tests.support.mar import Mar

pytestmark = pytest.mark.slow

STARTER = ROOT / "pipeline" / "starters" / "seq_classification"
OLDER = Path(sys.prefix) / "older"
LINES = [pytest.param("", id="5"), pytest.param(str(OLDER), id="4", marks=pytest.mark.long)]
TASK = ("--task", "seq_classification")
CANARY = "canaryinthecredentials"


def changed(file: Path, told: dict[str, Any]) -> None:
    file.write_text(json.dumps({**(json.loads(file.read_text()) if file.exists() else {}), **told}))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copytree(STARTER, tmp_path / "model"))


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    file = tmp_path / "home" / "credentials"
    file.parent.mkdir()
    file.write_text(f"[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n{CANARY}\nhello\n")
    return file


def holds_canary(folder: Path) -> list[str]:
    """Files below a folder, and members of archives, that have the canary in them."""
    found = []
    for file in folder.rglob("*"):
        if not file.is_file():
            continue
        if CANARY.encode() in file.read_bytes():
            found.append(str(file))
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                found += [f"{file}!{name}" for name in archive.namelist() if CANARY.encode() in archive.read(name)]
    return found


@pytest.mark.parametrize("line", LINES)
def test_a_tokenizer_is_made_of_the_checkpoints_own_files_alone(
    fresh_mar: Mar, model: Path, secret: Path, line: str
) -> None:
    words = list(json.loads((model / "tokenizer.json").read_text())["model"]["vocab"])
    (model / "tokenizer.json").unlink()
    (model / "vocab.txt").write_text("\n".join(words) + "\n")
    files = {"vocab_file": str(secret), "tokenizer_file": None, "name_or_path": str(secret.parent)}
    changed(model / "tokenizer_config.json", {"tokenizer_class": "DistilBertTokenizer", **files})
    changed(model / "special_tokens_map.json", {"vocab_file": str(secret), "unk_token": "[UNK]"})
    changed(model / "config.json", {"_name_or_path": str(secret.parent), "text_config": {"_name_or_path": "x"}})
    (archive,) = fresh_mar.build(*TASK, "--model", model, PYTHONPATH=line)
    with zipfile.ZipFile(archive["path"]) as packed:
        made = json.loads(packed.read("tokenizer.json"))
        told = {name: json.loads(packed.read(name)) for name in ("tokenizer_config.json", "config.json")}
    assert set(made["model"]["vocab"]) == set(words)
    assert not any(str(secret.parent) in json.dumps(each) for each in told.values())
    assert not holds_canary(fresh_mar.cache) + holds_canary(fresh_mar.out)


@pytest.mark.parametrize("name", ["chat_template.jinja", "vocab.txt", "config.json"])
def test_what_a_link_leads_to_out_of_the_folder_is_nowhere_afterwards(
    fresh_mar: Mar, model: Path, secret: Path, name: str
) -> None:
    (model / name).unlink(missing_ok=True)
    (model / name).symlink_to(secret)
    done = fresh_mar("build", *TASK, "--model", model, "--out", fresh_mar.out)
    assert done.returncode == 2
    assert f"{model / name} is a link out of the folder" in done.stderr.replace("\n", " ").replace("         ", "")
    assert CANARY not in done.stdout + done.stderr
    assert not holds_canary(fresh_mar.cache) + holds_canary(fresh_mar.out)


def lightglue(folder: Path, marker: Path) -> dict[str, Any]:
    """A config.json that has transformers before 5.3 load another model's config with code (CVE-2026-5241)."""
    code = f"from pathlib import Path\nPath({str(marker)!r}).touch()\n"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "config.json").write_text(json.dumps({"model_type": "x", "auto_map": {"AutoConfig": "own.C"}}))
    (folder / "sub" / "own.py").write_text(
        code + "from transformers import BertConfig\n\n\nclass C(BertConfig):\n    model_type = 'x'\n"
    )
    return {
        "model_type": "lightglue", "trust_remote_code": True, "descriptor_dim": 256, "num_attention_heads": 4,
        "keypoint_detector_config": {"model_type": "x", "_name_or_path": str(folder / "sub")},
    }  # fmt: skip


# In a process of its own: on either line, with the config as it is, and as a worker gets it.
DOORS = """
import sys
from pathlib import Path
from mar_pipeline.workers import loading
from mar_pipeline.errors import InputError

for door in (lambda: loading._config({"checkpoint": sys.argv[1]}), lambda: loading.tokenizer(sys.argv[1])):
    try:
        door()
    except InputError as error:
        print(error.what)
    else:
        print("opened")
"""


def said(folder: Path, line: str) -> list[str]:
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), line)))}
    done = subprocess.run(
        [sys.executable, "-c", DOORS, str(folder)], env=env, cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


@pytest.mark.parametrize("line", LINES)
def test_a_type_that_is_no_model_for_text_is_refused_before_its_config_is_made(
    model: Path, tmp_path: Path, line: str
) -> None:
    changed(model / "config.json", lightglue(tmp_path / "attack", tmp_path / "ran"))
    told = said(model, line)
    assert len(told) == 2
    assert all("has no text model of the type 'lightglue'" in each for each in told)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("line", LINES)
def test_a_config_that_trusts_code_is_refused_and_nothing_runs(
    fresh_mar: Mar, model: Path, tmp_path: Path, line: str
) -> None:
    changed(model / "config.json", lightglue(tmp_path / "attack", tmp_path / "ran"))
    done = fresh_mar("build", *TASK, "--model", model, "--out", fresh_mar.out, PYTHONPATH=line)
    assert done.returncode == 2
    assert "asks to run the model's own code: trust_remote_code" in " ".join(done.stderr.split())
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("named", [None, 3, ["bert"], "bert_x", "clip", "t5-v9", "\x1b[31mbert"])
def test_an_unknown_type_is_refused_with_what_is_supported(tmp_path: Path, named: Any) -> None:
    from mar_pipeline.errors import InputError
    from mar_pipeline.workers.model_types import refuse_unknown

    (tmp_path / "config.json").write_text(json.dumps({"model_type": named}))
    with pytest.raises(InputError) as error:
        refuse_unknown(tmp_path)
    assert "model_type" in str(error.value) or "AutoModelForCausalLM" in error.value.why
    assert "\x1b" not in str(error.value)


def test_every_type_that_an_auto_class_of_a_task_knows_is_taken(tmp_path: Path) -> None:
    import transformers

    from mar_pipeline.tasks import TASKS
    from mar_pipeline.workers.model_types import refuse_unknown

    for task in TASKS.values():
        for config in getattr(transformers, task.auto_class)._model_mapping:
            (tmp_path / "config.json").write_text(json.dumps({"model_type": config.model_type}))
            refuse_unknown(tmp_path)
