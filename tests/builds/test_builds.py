"""Whole builds of tiny checkpoints: the shapes they come in, and builds that are cut off or run side by side."""

from __future__ import annotations

import contextlib
import hashlib
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

import psutil
import pytest

from tests.support import tiny
from tests.support.mar import MODES, Mar

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


def without_token_names(folder: Path) -> Path:
    """The checkpoint as those of the first years are: the tokenizer's class knows its special tokens, no file does."""
    (folder / "special_tokens_map.json").unlink(missing_ok=True)
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": true, "model_max_length": 64}')
    return folder


@pytest.mark.parametrize("mode", MODES)
def test_special_tokens_that_only_the_class_knows_are_in_the_archive(fresh_mar: Mar, mode: str) -> None:
    folder = without_token_names(tiny.save(fresh_mar.folder / "old", "bert", "question_answering"))
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    sample = {"question": "who won?", "context": "Nora won.", "handle_impossible_answer": True, "top_k": 9}
    words = ["--task", "question_answering", "--model", folder, "--save-mode", mode, *samples(sample)]
    (archive,) = fresh_mar.build(*words)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    with zipfile.ZipFile(fresh_mar.folder / archive["path"]) as unpacked:
        named = json.loads(unpacked.read("tokenization.json"))["special_tokens"]
        assert unpacked.read("tokenizer_config.json") == before["tokenizer_config.json"]
        own, theirs = (json.loads(text) for text in (unpacked.read("tokenizer.json"), before["tokenizer.json"]))
        assert {**own, "decoder": None} == theirs  # the class knows one
    assert named["cls_token"] == "[CLS]"
    assert set(named.values()) == {"[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"}
    answers = json.loads(fresh_mar("run", archive["path"], "--input", json.dumps(sample)).stdout)
    assert [one["score"] > 0 for one in answers if not one["answer"]] == [True]
    assert fresh_mar.plan(*words)["serialize"]["cached"]


def test_an_unknown_word_is_no_part_of_the_word_before_it(fresh_mar: Mar) -> None:
    folder = without_token_names(tiny.save(fresh_mar.folder / "old", "bert", "token_classification"))
    (archive,) = fresh_mar.build("--task", "token_classification", "--model", folder)
    text = {"text": "Maria \U00013000 Lopez", "aggregation_strategy": "first"}
    found = json.loads(fresh_mar("run", archive["path"], "--input", json.dumps(text)).stdout)
    assert found
    report = json.loads(next((fresh_mar.out / "reports").iterdir()).read_text())
    assert [one for one in report["samples"] if "\U00013000" in one["request"]["text"]]


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
    words = [
        sys.executable,
        "-m",
        "mar_pipeline",
        "build",
        "--task",
        "seq_classification",
        "--model",
        str(bert),
        "--json",
    ]
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
        [sys.executable, "-m", "mar_pipeline", *words, "--out", str(fresh_mar.out)],
        env={**os.environ, **fresh_mar.env},
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    # Their server, the process that has transformers too, and a worker.
    while len(workers := _below(build.pid)) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(workers) >= 3
    build.send_signal(number)
    _, said = build.communicate(timeout=60)
    assert build.returncode == 130
    assert "Traceback" not in said
    # A signal between a worker's start and its being known lets it see for itself that we are gone.
    limit = time.monotonic() + 10
    while any(map(_runs, workers)) and time.monotonic() < limit:
        time.sleep(0.1)
    assert not [pid for pid in workers if _runs(pid)]
    assert not settled(fresh_mar)
    assert not list(fresh_mar.out.rglob("*.mar"))


def _below(pid: int) -> list[int]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return [one.pid for one in psutil.Process(pid).children(recursive=True)]
    return []


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def samples(*requests: Any) -> tuple[str, str]:
    return "--set", f"verify.samples={json.dumps(list(requests), ensure_ascii=False)}"


LONG = " ".join(f"Maria{number} met old Tom in a shop {number}." for number in range(12))


@pytest.mark.parametrize(
    ("family", "task", "words"),
    [
        ("bert", "question_answering", ("--set", "handler.top_k=2", "--save-mode", "torchscript")),
        (
            "roberta",
            "question_answering",
            samples(
                {"question": "Who?", "context": LONG, "max_answer_length": 3},
                {"question": "Who?", "context": LONG, "top_k": 3, "handle_impossible_answer": True},
            ),
        ),
        ("bert", "token_classification", samples(LONG, {"text": LONG, "aggregation_strategy": "average"})),
        ("distilbert", "seq_classification", samples({"instances": ["a", {"text": LONG, "top_k": 2}]})),
        ("roberta", "token_classification", ("--set", "handler.do_lower_case=true")),
        (
            "gpt2",
            "text_generation",
            (
                *("--set", "handler.generation.do_sample=true", "--save-mode", "torchscript"),
                *samples("The", {"prompt": "A", "parameters": {"return_full_text": True, "stop": ["e"]}}),
            ),
        ),
    ],
    ids=["top_k", "long contexts", "long texts", "instances", "lower case", "full text"],
)
def test_the_gate_knows_every_form_of_request(
    fresh_mar: Mar, tmp_path: Path, family: str, task: str, words: tuple[str, ...]
) -> None:
    folder = tiny.save(tmp_path / "one", family, task)
    (archive,) = fresh_mar.build("--task", task, "--model", folder, *words)
    assert archive["verified"] is True


def test_a_checkpoint_cut_on_the_left_is_cut_there(fresh_mar: Mar, tmp_path: Path) -> None:
    folder = tiny.save(tmp_path / "one", "bert", "seq_classification")
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "truncation_side": "left"}))
    text = "good " * 70 + "the old man opened a door " * 8
    (archive,) = fresh_mar.build("--task", "seq_classification", "--model", folder, *samples(text))
    assert archive["verified"] is True


@pytest.mark.parametrize(
    ("task", "file", "settings"),
    [
        ("token_classification", "tokenizer_config.json", {"truncation_side": "left"}),
        ("question_answering", "config.json", {"return_dict": False}),
        ("question_answering", "config.json", {"output_attentions": True, "architectures": []}),
        ("text_generation", "tokenizer_config.json", {"model_input_names": ["input_ids"]}),
    ],
    ids=["windows", "outputs", "attentions", "inputs"],
)
def test_settings_of_how_a_model_is_called_leave_the_original_readable(
    fresh_mar: Mar, tmp_path: Path, task: str, file: str, settings: dict[str, Any]
) -> None:
    folder = tiny.save(tmp_path / "one", "gpt2" if task == "text_generation" else "bert", task)
    place = folder / file
    place.write_text(json.dumps({**json.loads(place.read_text()), **settings}))
    (archive,) = fresh_mar.build("--task", task, "--model", folder)
    assert archive["verified"] is True


def test_another_dtype_of_the_handler_leaves_the_weights_alone(fresh_mar: Mar, tmp_path: Path) -> None:
    folder = tiny.save(tmp_path / "one", "bert", "seq_classification")
    file = folder / "config.json"
    config = json.loads(file.read_text())
    del config["architectures"]
    file.write_text(json.dumps(config))
    words = ("--task", "seq_classification", "--model", folder)
    fresh_mar.build(*words, "--set", "handler.dtype=bfloat16")
    (archive,) = fresh_mar.build(*words)
    assert archive["verified"] is True


@pytest.mark.parametrize("mode", MODES)
def test_bfloat16_answers_nearly_as_float32_does(fresh_mar: Mar, bert: Path, mode: str) -> None:
    from transformers import pipeline

    words = ("--task", "seq_classification", "--model", bert, "--save-mode", mode)
    (archive,) = fresh_mar.build(*words, "--set", "handler.dtype=bfloat16")
    text = "the room was awful, and the staff kind"
    answer = json.loads(fresh_mar("run", archive["path"], "--input", text).stdout)
    (exact,) = pipeline("text-classification", model=str(bert))(text)
    assert answer["label"] == exact["label"]
    assert 1e-6 < abs(answer["score"] - exact["score"]) < 0.03
    if mode == "torchscript":
        with zipfile.ZipFile(archive["path"]) as packed:
            assert json.loads(packed.read("graph.json"))["dtype"] == "bfloat16"


def test_a_model_that_better_transformer_cannot_help_is_told_at_each_build(fresh_mar: Mar, tmp_path: Path) -> None:
    folder = tiny.save(tmp_path / "one", "mpnet", "seq_classification")
    words = ("build", "--task", "seq_classification", "--model", folder, "--set", "handler.BetterTransformer=true")
    for _ in range(2):
        done = fresh_mar(*words)
        assert done.returncode == 0, done.stderr
        assert "note: one: BetterTransformer has no effect: MPNetForSequenceClassification has no" in done.stderr


def test_an_untrained_head_that_is_allowed_is_the_same_each_time(fresh_mar: Mar, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = tiny.save(tmp_path / "one", "bert", "seq_classification")
    weights = load_file(folder / "model.safetensors")
    body = {name: tensor for name, tensor in weights.items() if not name.startswith("classifier")}
    save_file(body, folder / "model.safetensors", metadata={"format": "pt"})
    words = ("--task", "seq_classification", "--model", folder)
    assert fresh_mar("build", *words).returncode == 2
    (archive,) = fresh_mar.build(*words, "--set", "handler.allow_untrained_head=true")
    assert archive["verified"] is True


def test_constraints_that_a_traced_decoder_has_not_are_refused(fresh_mar: Mar, tmp_path: Path) -> None:
    folder = tiny.save(tmp_path / "one", "gpt2", "text_generation")
    file = folder / "generation_config.json"
    own = {**json.loads(file.read_text()), "no_repeat_ngram_size": 2, "return_dict_in_generate": True}
    file.write_text(json.dumps(own))
    words = ("--task", "text_generation", "--model", folder)
    (archive,) = fresh_mar.build(*words)
    assert archive["verified"] is True
    done = fresh_mar("build", *words, "--save-mode", "torchscript")
    assert done.returncode == 3
    assert "no_repeat_ngram_size" in done.stderr


def test_a_damaged_archive_in_the_cache_is_made_again(fresh_mar: Mar, bert: Path) -> None:
    words = ("--task", "seq_classification", "--model", bert)
    (first,) = fresh_mar.build(*words)
    blob = fresh_mar.cache / "blobs" / first["sha256"][:2] / first["sha256"]
    (fresh_mar.folder / first["path"]).unlink()
    data = bytearray(blob.read_bytes())
    data[len(data) // 2] ^= 255
    blob.chmod(0o644)
    blob.write_bytes(data)
    (again,) = fresh_mar.build(*words)
    made = (fresh_mar.folder / again["path"]).read_bytes()
    assert hashlib.sha256(made).hexdigest() == again["sha256"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--set", "archive.name=a.mar"), "without .mar"),
        (("--cache", "/proc/none"), "cache cannot be at /proc/none"),
        (("--set", 'verify.samples=[{"text": 5}]'), "expected a text"),
    ],
    ids=["name", "cache", "samples"],
)
def test_what_cannot_be_is_told_without_a_traceback(
    fresh_mar: Mar, bert: Path, words: tuple[str, ...], said: str
) -> None:
    done = fresh_mar("build", "--task", "seq_classification", "--model", bert, *words)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_broken_package_shows_its_traceback_and_what_to_install(fresh_mar: Mar, bert: Path, tmp_path: Path) -> None:
    (tmp_path / "fake" / "torch").mkdir(parents=True)
    (tmp_path / "fake" / "torch" / "__init__.py").write_text(
        "raise ImportError('libgone.so: cannot open shared object file')"
    )
    words = ("build", "--task", "seq_classification", "--model", bert)
    done = fresh_mar(*words, PYTHONPATH=str(tmp_path / "fake"))
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "libgone.so" in done.stderr
    assert "Install it again" in done.stderr
