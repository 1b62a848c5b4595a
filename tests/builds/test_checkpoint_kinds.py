"""The forms in which checkpoints lie in folders: a Trainer's, sentence-transformers', links, pickles; and what is wrong
with those that cannot be built."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support import tiny
from tests.support.mar import MODES, Mar

pytestmark = pytest.mark.slow

TEXTS = ["The soup was good", "a kind old man, not awful", "bad"]


@pytest.fixture(scope="module")
def mar(tmp_path_factory: pytest.TempPathFactory) -> Mar:
    return Mar(tmp_path_factory.mktemp("mar"))


@pytest.fixture(scope="module")
def encoder(bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT without a head, as bert-base-uncased and sentence-transformers' models are."""
    from transformers import AutoModel, AutoTokenizer

    folder = tmp_path_factory.mktemp("encoder")
    AutoModel.from_pretrained(bert).save_pretrained(folder)
    AutoTokenizer.from_pretrained(bert).save_pretrained(folder)
    return folder


def answers(mar: Mar, archive: dict[str, Any], requests: list[Any]) -> list[Any]:
    done = mar("run", mar.folder / archive["path"], "--input", json.dumps(requests), "--json")
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout))


def answers_as(mar: Mar, archive: dict[str, Any], folder: Path) -> None:
    """The archive answers as transformers' pipeline over a folder does."""
    from transformers import pipeline

    got, wanted = answers(mar, archive, TEXTS), pipeline("text-classification", model=str(folder))(TEXTS)
    assert [one["label"] for one in got] == [one["label"] for one in wanted]
    assert [one["score"] for one in got] == pytest.approx([one["score"] for one in wanted], abs=1e-5)


def members(mar: Mar, archive: dict[str, Any]) -> list[str]:
    with zipfile.ZipFile(mar.folder / archive["path"]) as packed:
        return packed.namelist()


def refused(mar: Mar, tmp_path: Path, words: tuple[Any, ...], *said: str, **env: str) -> str:
    """The error of a build that ends with exit code 2, three lines, and nothing half-done."""
    before = sorted(path.name for path in tmp_path.iterdir())
    done = mar("build", *words, "--out", tmp_path / "refused", **env)
    assert done.returncode == 2, done.stderr
    error = done.stderr[done.stderr.index("error:") :].strip()
    assert all(part in error for part in said), error
    assert len(error.splitlines()) <= 3, error
    assert not [path for path in (mar.cache / "tmp").glob("*") if path.is_dir()]
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    return error


def test_a_trainers_checkpoint_builds_and_what_training_left_is_not_packed(
    mar: Mar, bert: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, Trainer, TrainingArguments

    tokenizer = AutoTokenizer.from_pretrained(bert)
    rows = [{**tokenizer(text), "labels": number % 2} for number, text in enumerate(TEXTS * 4)]
    settings = TrainingArguments(
        output_dir=str(tmp_path / "run"),
        max_steps=3,
        save_steps=1,
        per_device_train_batch_size=4,
        learning_rate=1e-2,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    model = AutoModelForSequenceClassification.from_pretrained(bert)
    Trainer(model=model, args=settings, train_dataset=rows, processing_class=tokenizer).train()
    folder = tmp_path / "run/checkpoint-3"
    left = {file.name for file in folder.iterdir()} - {"config.json", "model.safetensors"}
    assert left >= {"optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin", "trainer_state.json"}
    run = refused(mar, tmp_path, ("--task", "seq_classification", "--model", tmp_path / "run"))
    assert run.endswith(f"{tmp_path}/run/checkpoint-3")
    (archive,) = mar.build("--model", folder)
    assert not [name for name in members(mar, archive) if name.endswith((".pt", ".pth", ".bin")) or "trainer" in name]
    answers_as(mar, archive, folder)


def sentence_transformer(folder: Path, model: Path, home: str, *, pooling: bool = True) -> Path:
    """A folder as sentence-transformers lays it out (its base/model.py): modules.json names each module's folder, the
    first of which is the root today, and was 0_Transformer."""
    shutil.copytree(model, folder / home, dirs_exist_ok=True)
    rows = [{"idx": 0, "name": "0", "path": home, "type": "sentence_transformers.models.Transformer"}]
    (folder / home / "sentence_bert_config.json").write_text('{"max_seq_length": 64, "do_lower_case": false}')
    if pooling:
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling/config.json").write_text(
            '{"word_embedding_dimension": 32, "pooling_mode_mean_tokens": true}'
        )
        rows.append({"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"})
    (folder / "modules.json").write_text(json.dumps(rows, indent=2))
    (folder / "config_sentence_transformers.json").write_text('{"__version__": {"sentence_transformers": "3.0.0"}}')
    return folder


@pytest.mark.parametrize("home", ["", "0_Transformer"])
def test_a_sentence_transformer_has_no_head_and_is_refused_by_the_names_of_the_missing_weights(
    mar: Mar, encoder: Path, tmp_path: Path, home: str
) -> None:
    folder = sentence_transformer(tmp_path / "st", encoder, home)
    words = ("--task", "seq_classification", "--model", folder)
    said = ("classifier.bias, classifier.weight", "handler.allow_untrained_head: true")
    refused(mar, tmp_path, words, *said)


def test_a_sentence_transformer_builds_with_a_head_that_may_be_untrained(
    mar: Mar, encoder: Path, tmp_path: Path
) -> None:
    folder = sentence_transformer(tmp_path / "st", encoder, "0_Transformer")
    words = ("--task", "seq_classification", "--model", folder, "--set", "handler.allow_untrained_head=true")
    (archive,) = mar.build(*words)
    with zipfile.ZipFile(mar.folder / archive["path"]) as packed:
        told = json.loads(packed.read("config.json"))
        assert not [name for name in packed.namelist() if "Pooling" in name or "modules" in name]
    assert told["architectures"] == ["BertForSequenceClassification"]
    assert told["hidden_size"] == 32


def test_a_cross_encoder_builds(mar: Mar, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = tiny.save(tmp_path / "model", "bert", "seq_classification", num_labels=1)
    folder = sentence_transformer(tmp_path / "cross", model, "", pooling=False)
    pair = {"text": "Who won?", "text_pair": "Nora won once, in March."}
    (archive,) = mar.build("--model", folder, "--set", f"verify.samples={json.dumps([pair])}")
    (answer,) = answers(mar, archive, [pair])
    inputs = AutoTokenizer.from_pretrained(folder)(pair["text"], pair["text_pair"], return_tensors="pt")
    with torch.no_grad():
        logit = AutoModelForSequenceClassification.from_pretrained(folder)(**inputs).logits[0, 0]
    assert answer["score"] == pytest.approx(float(torch.sigmoid(logit)), abs=1e-5)


def test_a_folder_of_links_is_the_same_model(mar: Mar, bert: Path, tmp_path: Path) -> None:
    # As the Hugging Face cache has its snapshots.
    repository = tmp_path / "models--acme--bert"
    folder = repository / "snapshots" / ("0123456789" * 4)
    folder.mkdir(parents=True)
    (repository / "blobs").mkdir()
    for number, file in enumerate(sorted(bert.iterdir())):
        blob = shutil.copyfile(file, repository / "blobs" / f"{number:040}")
        (folder / file.name).symlink_to(os.path.relpath(blob, folder))
    name = ("--set", "archive.name=links")
    (plain,) = mar.build("--model", bert, *name)
    (archive,) = mar.build("--model", folder, *name)
    assert archive["sha256"] == plain["sha256"]


# Pickles.


class Evil:
    """Runs a command when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.system, (f"touch '{self.marker}'",)


def tensors(model: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return dict(load_file(model / "model.safetensors"))


def pickled(folder: Path, model: Path, parts: int = 1, marker: Path | None = None, **options: Any) -> Path:
    """The model with its weights as pickles, in so many shards; with a `marker`, the last one runs a command."""
    import torch

    shutil.copytree(model, folder)
    (folder / "model.safetensors").unlink()
    weights = tensors(model)
    names = [f"pytorch_model-{part + 1:05}-of-{parts:05}.bin" for part in range(parts)]
    if parts == 1:
        names = ["pytorch_model.bin"]
    placed = {name: names[number % parts] for number, name in enumerate(sorted(weights))}
    for part in names:
        content: dict[str, Any] = {name: weights[name] for name, place in placed.items() if place == part}
        if marker and part == names[-1]:
            content["evil"] = Evil(marker)
        torch.save(content, folder / part, **options)
    if parts > 1:
        index = {"metadata": {"total_size": 1}, "weight_map": placed}
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    return folder


ALLOWED = ("--set", "handler.allow_pickle=true")


def test_pickled_weights_are_refused_and_where_they_may_be_are_kept_as_safetensors(
    mar: Mar, bert: Path, tmp_path: Path
) -> None:
    folder = pickled(tmp_path / "pickled", bert)
    refused(mar, tmp_path, ("--model", folder), "pickled (pytorch_model.bin)", "can run any code", "allow_pickle: true")
    (archive,) = mar.build("--model", folder, *ALLOWED)
    answers_as(mar, archive, bert)
    holds_safetensors_alone(mar, archive)


def test_shards_of_pickled_weights_are_traced_into_safetensors(mar: Mar, bert: Path, tmp_path: Path) -> None:
    folder = pickled(tmp_path / "pickled", bert, parts=3)
    assert (folder / "pytorch_model-00003-of-00003.bin").exists()
    refused(mar, tmp_path, ("--model", folder), "pickled (pytorch_model-00001-of-00003.bin)")
    (archive,) = mar.build("--model", folder, *ALLOWED, "--save-mode", "torchscript")
    answers_as(mar, archive, bert)
    holds_safetensors_alone(mar, archive)


def holds_safetensors_alone(mar: Mar, archive: dict[str, Any]) -> None:
    names = members(mar, archive)
    assert "model.safetensors" in names
    assert not [name for name in names if name.endswith((".bin", ".pkl", ".index.json"))]
    done = mar("check", mar.folder / archive["path"])
    assert done.returncode == 0, done.stdout
    told = json.loads(mar("inspect", mar.folder / archive["path"], "--json").stdout)["provenance"]["checkpoint"]
    assert [name for name in told if name.endswith(".bin")]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("form", ["zip", "before zip", "shards"])
def test_a_pickle_that_runs_a_command_runs_none(mar: Mar, bert: Path, tmp_path: Path, mode: str, form: str) -> None:
    marker = tmp_path / "marker"
    options = {"_use_new_zipfile_serialization": False} if form == "before zip" else {}
    folder = pickled(tmp_path / "evil", bert, 2 if form == "shards" else 1, marker, **options)
    (last,) = sorted(folder.glob("*.bin"))[-1:]
    said = (f"{last.name} contains more than tensors", "posix.system", "not loaded", "safetensors")
    error = refused(mar, tmp_path, ("--model", folder, *ALLOWED, "--save-mode", mode), *said)
    assert not marker.exists()
    # What torch advises is to load it anyway.
    assert "False" not in error
    # That it would have run.
    code = f"import torch; torch.load({str(last)!r}, weights_only=False)"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert marker.exists()


def a_pointer(file: Path) -> None:
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 12\n")


def cut_short(file: Path) -> None:
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])


def a_script(file: Path) -> None:
    import torch

    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)), file)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (a_pointer, "pytorch_model.bin is a Git LFS pointer"),
        (cut_short, "pytorch_model.bin cannot be read as pickled tensors"),
        (a_script, "pytorch_model.bin cannot be read as pickled tensors"),
    ],
)
def test_what_is_no_pickle_of_tensors_is_told_with_the_files_name(
    mar: Mar, bert: Path, tmp_path: Path, damage: Callable[[Path], None], said: str
) -> None:
    folder = pickled(tmp_path / "pickled", bert)
    damage(folder / "pytorch_model.bin")
    refused(mar, tmp_path, ("--model", folder, *ALLOWED), said)


# What cannot be built.


def model_of(folder: Path, **changes: Any) -> Path:
    """A folder with the files of a whole model, by their names; None takes one out."""
    files = {
        "config.json": json.dumps({"model_type": "bert", "architectures": ["BertForSequenceClassification"]}),
        "tokenizer.json": "{}",
        "model.safetensors": None,
        **changes,
    }
    folder.mkdir()
    for name, content in files.items():
        if content is None and name == "model.safetensors":
            from safetensors.numpy import save

            (folder / name).write_bytes(save({}))
        elif content is not None:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(content)
    for name in [name for name, content in changes.items() if content is None]:
        (folder / name).unlink(missing_ok=True)
    return folder


NO_WEIGHTS = {"model.safetensors": None}
INDEX = "model.safetensors.index.json"


def indexed(*names: str) -> dict[str, Any]:
    return {**NO_WEIGHTS, INDEX: json.dumps({"weight_map": {str(i): name for i, name in enumerate(names)}})}


@pytest.mark.parametrize(
    ("changes", "task", "said"),
    [
        ({}, "token_classification", ("for seq_classification, not for token_classification", "--task seq_cl")),
        (
            {"config.json": '{"model_type": "t5", "is_encoder_decoder": true}'},
            "text_generation",
            ("is an encoder-decoder", "a decoder for text generation"),
        ),
        ({"tokenizer.json": None}, "seq_classification", ("has no tokenizer", "AutoTokenizer")),
        ({"config.json": None}, "seq_classification", ("has no config.json", "save_pretrained")),
        (indexed("model-1.safetensors"), "seq_classification", ("lacks model-1.safetensors", "Copy the missing")),
        (indexed("../x.safetensors"), "seq_classification", ("'../x.safetensors'", "file in this folder")),
        ({**NO_WEIGHTS, INDEX: "{"}, "seq_classification", ("is not an index of weights", "save the model again")),
        ({**NO_WEIGHTS, "pytorch_model.bin": ""}, "seq_classification", ("are pickled", "allow_pickle: true")),
        ({**NO_WEIGHTS, "tf_model.h5": ""}, "seq_classification", ("TensorFlow", "Convert the model to PyTorch")),
        (NO_WEIGHTS, "seq_classification", ("It has no weight files", "save_pretrained")),
        (
            {"model.safetensors": "cut"},
            "seq_classification",
            ("not a complete safetensors file", "Fetch the file again"),
        ),
        (
            {"config.json": '{"model_type": "bert", "id2label": {"0": "no", "2": "yes"}}'},
            "seq_classification",
            ("id2label", "Fix it"),
        ),
    ],
)
def test_a_folder_that_cannot_be_built_is_refused_with_the_next_step_and_nothing_is_left(
    fresh_mar: Mar, tmp_path: Path, changes: dict[str, Any], task: str, said: tuple[str, ...]
) -> None:
    folder = model_of(tmp_path / "model", **changes)
    fresh_mar.cache.mkdir()
    refused(fresh_mar, tmp_path, ("--task", task, "--model", folder), *said)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("num_labels=3", ("3 labels are asked for (handler.num_labels)", "has 2: negative, positive", "use 2")),
        ("labels=[a, b, c]", ("3 labels are asked for (handler.labels)", "has 2: negative, positive")),
    ],
)
def test_labels_that_contradict_the_checkpoint_are_refused(
    mar: Mar, bert: Path, tmp_path: Path, asked: str, said: tuple[str, ...]
) -> None:
    refused(mar, tmp_path, ("--model", bert, "--set", f"handler.{asked}"), *said)


@pytest.mark.parametrize("mode", MODES)
def test_a_head_of_another_size_than_its_settings_say_is_refused_by_its_weights(
    mar: Mar, bert: Path, tmp_path: Path, mode: str
) -> None:
    folder = shutil.copytree(bert, tmp_path / "model")
    told = json.loads((folder / "config.json").read_text())
    told["id2label"]["2"], told["label2id"]["other"] = "other", 2
    (folder / "config.json").write_text(json.dumps(told))
    said = ("has 3 labels by its config.json, and a head for 2", "classifier.weight", "handler.num_labels: 2")
    refused(mar, tmp_path, ("--model", folder, "--save-mode", mode), *said)
