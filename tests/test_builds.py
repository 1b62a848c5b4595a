"""Whole builds of tiny checkpoints: the shapes they come in, and builds that are cut off or run side by side."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests import tiny
from tests.conftest import Mar

pytestmark = pytest.mark.slow


def settled(mar: Mar) -> list[Path]:
    """What lies in the cache's place for unfinished work."""
    return [path for path in (mar.cache / "tmp").glob("*") if path.is_dir()]


def test_a_checkpoint_of_several_labels_with_names_of_the_users_own(fresh_mar: Mar) -> None:
    folder = tiny.save(
        fresh_mar.folder / "tags", "roberta", "seq_classification",
        num_labels=3, problem_type="multi_label_classification",
    )  # fmt: skip
    names = ["--set", "handler.labels=[toxic, rude, kind]", "--save-mode", "torchscript"]
    (archive,) = fresh_mar.build("--task", "seq_classification", "--model", folder, *names)
    done = fresh_mar("run", archive["path"], "--input", json.dumps({"text": "good", "top_k": 3}))
    answer = json.loads(done.stdout)
    assert {one["label"] for one in answer} == {"toxic", "rude", "kind"}
    assert sum(one["score"] for one in answer) != pytest.approx(1.0, abs=1e-3)


def test_a_checkpoint_with_an_old_vocabulary_file_gets_a_tokenizer_that_lowers_case(fresh_mar: Mar) -> None:
    from transformers import BertTokenizerFast, pipeline

    folder = tiny.save(fresh_mar.folder / "old", "bert", "seq_classification")
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (folder / name).unlink(missing_ok=True)
    (folder / "vocab.txt").write_text("\n".join(sorted(vocabulary, key=vocabulary.__getitem__)) + "\n")
    words = ["--task", "seq_classification", "--model", folder, "--set", "handler.do_lower_case=true"]
    (archive,) = fresh_mar.build(*words)
    answer = json.loads(fresh_mar("run", archive["path"], "--input", "The SOUP was GOOD.").stdout)
    tokenizer = BertTokenizerFast(str(folder / "vocab.txt"), do_lower_case=True)
    (expected,) = pipeline("text-classification", model=str(folder), tokenizer=tokenizer)("The SOUP was GOOD.")
    assert answer["label"] == expected["label"]
    assert answer["score"] == pytest.approx(expected["score"], abs=1e-5)


def test_shards_pass_through_as_they_are(fresh_mar: Mar, bert: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    folder = fresh_mar.folder / "sharded"
    shutil.copytree(bert, folder)
    (folder / "model.safetensors").unlink()
    AutoModelForSequenceClassification.from_pretrained(bert).save_pretrained(folder, max_shard_size="20KB")
    (archive,) = fresh_mar.build("--task", "seq_classification", "--model", folder)
    shards = {path.name: path.read_bytes() for path in folder.glob("model*.safetensors*")}
    assert len(shards) > 3
    with zipfile.ZipFile(archive["path"]) as packed:
        assert {name: packed.read(name) for name in packed.namelist() if name in shards} == shards


def test_builds_side_by_side_do_the_work_once(fresh_mar: Mar, bert: Path) -> None:
    words = [sys.executable, "-m", "pipeline", "build", "--task", "seq_classification", "--model", str(bert), "--json"]
    running = [
        subprocess.Popen(
            [*words, "--out", str(fresh_mar.folder / f"out{number}")],
            env={**os.environ, **fresh_mar.env},
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(3)
    ]
    results: list[dict[str, Any]] = [json.loads(one.communicate(timeout=300)[0])["archives"][0] for one in running]
    assert len({result["sha256"] for result in results}) == 1
    for name in ("serialize", "handler", "archive", "verify"):
        did = [stage for result in results for stage in result["stages"] if stage["stage"] == name]
        assert [stage["cached"] for stage in did].count(False) == 1, name
    assert not settled(fresh_mar)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_build_that_is_cut_off_leaves_nothing_half_done(fresh_mar: Mar, bert: Path, number: signal.Signals) -> None:
    words = ["build", "--task", "seq_classification", "--model", str(bert), "--save-mode", "torchscript"]
    build = subprocess.Popen(
        [sys.executable, "-m", "pipeline", *words, "--out", str(fresh_mar.out)],
        env={**os.environ, **fresh_mar.env},
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not (workers := _children(build.pid)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert workers
    build.send_signal(number)
    _, said = build.communicate(timeout=60)
    assert build.returncode == 130
    assert "Traceback" not in said
    assert not [pid for pid in workers if _runs(pid)]
    assert not settled(fresh_mar)
    assert not list(fresh_mar.out.rglob("*.mar"))


def _children(pid: int) -> list[int]:
    """The worker processes of a build."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            if parent == pid and b"pipeline.worker" in (stat.parent / "cmdline").read_bytes():
                found.append(int(stat.parent.name))
        except OSError:
            continue
    return found


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
