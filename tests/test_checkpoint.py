"""Checkpoints: which files are needed, and what their settings say."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from pipeline import checkpoint
from pipeline.errors import InputError
from pipeline.tasks import TASKS
from tests import tiny

WHOLE = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "README.md", "optimizer.pt"]


def test_only_what_an_archive_needs_is_taken() -> None:
    assert checkpoint.needed(WHOLE, "x") == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]


def test_an_index_of_shards_comes_before_a_single_file() -> None:
    assert checkpoint.INDEX in checkpoint.needed([*WHOLE, checkpoint.INDEX], "x")
    assert checkpoint.WEIGHTS not in checkpoint.needed([*WHOLE, checkpoint.INDEX], "x")


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ([f for f in WHOLE if f != "config.json"], "holds no config.json"),
        ([f for f in WHOLE if not f.startswith("tokenizer")], "holds no tokenizer"),
        (["config.json", "tokenizer.json", "pytorch_model.bin"], "pickled (pytorch_model.bin)"),
        (["config.json", "tokenizer.json", "tf_model.h5"], "another framework's (tf_model.h5)"),
        (["config.json", "tokenizer.json"], "There are no weights in it"),
    ],
    ids=["no config", "no tokenizer", "only pickles", "only TensorFlow", "no weights"],
)
def test_what_is_missing_is_said_in_at_most_three_lines_with_the_next_step(files: list[str], said: str) -> None:
    with pytest.raises(InputError) as caught:
        checkpoint.needed(files, "some/model")
    assert said in str(caught.value)
    assert caught.value.fix
    assert len(str(caught.value).splitlines()) <= 3


def test_the_shards_of_an_index_are_named_once_each() -> None:
    index = json.dumps(
        {"weight_map": {"a": "model-2.safetensors", "b": "model-1.safetensors", "c": "model-1.safetensors"}}
    )
    assert checkpoint.shards(index, "x") == ["model-1.safetensors", "model-2.safetensors"]


@pytest.mark.parametrize(
    "index",
    [
        "",
        "[]",
        "{}",
        '{"weight_map": ["a"]}',
        '{"weight_map": {"a": "../x.safetensors"}}',
        '{"weight_map": {"a": "/x.safetensors"}}',
    ],
)
def test_an_index_that_is_none_or_leads_out_of_the_folder_is_refused(index: str) -> None:
    with pytest.raises(InputError):
        checkpoint.shards(index, "x")


def safetensors(path: Path, cut: int = 0) -> Path:
    header = json.dumps({"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}).encode()
    data = struct.pack("<Q", len(header)) + header + bytes(16)
    path.write_bytes(data[: len(data) - cut])
    return path


def test_the_header_of_a_whole_file_is_read(tmp_path: Path) -> None:
    assert checkpoint.tensors(safetensors(tmp_path / "m.safetensors"))["w"]["shape"] == [4]


@pytest.mark.parametrize("cut", [1, 16, 20, 70])
def test_a_file_that_is_cut_short_is_found_without_reading_it(tmp_path: Path, cut: int) -> None:
    with pytest.raises(InputError, match="no whole safetensors file"):
        checkpoint.tensors(safetensors(tmp_path / "m.safetensors", cut))


def test_a_git_lfs_pointer_is_told_from_weights(tmp_path: Path) -> None:
    (tmp_path / "m.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 12\n")
    with pytest.raises(InputError, match="git lfs pull"):
        checkpoint.tensors(tmp_path / "m.safetensors")


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("BertForSequenceClassification", "seq_classification"),
        ("DistilBertForTokenClassification", "token_classification"),
        ("RobertaForQuestionAnswering", "question_answering"),
        ("FlaubertForQuestionAnsweringSimple", "question_answering"),
        ("GPT2LMHeadModel", "text_generation"),
        ("LlamaForCausalLM", "text_generation"),
        ("BertModel", None),
        ("BertForMaskedLM", None),
    ],
)
def test_the_task_is_told_from_the_class(name: str, task: str | None) -> None:
    found = checkpoint.task_of({"architectures": [name]})
    assert (found.name if found else None) == task


@pytest.mark.parametrize(
    ("config", "longest"),
    [
        ({"model_type": "bert", "max_position_embeddings": 512}, 512),
        ({"model_type": "bert", "max_position_embeddings": 514}, 514),
        ({"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1}, 512),
        ({"model_type": "mpnet", "max_position_embeddings": 64}, 62),
        ({"model_type": "gpt2", "n_positions": 1024}, 1024),
        ({"max_position_embeddings": 40}, 40),
        ({}, None),
    ],
)
def test_the_longest_input_is_what_the_positions_allow(config: dict[str, Any], longest: int | None) -> None:
    assert checkpoint.positions(config, {"model_max_length": 10**30}) == longest


@pytest.mark.slow
@pytest.mark.parametrize("family", ["bert", "roberta", "xlm-roberta", "mpnet", "distilbert", "electra", "albert"])
def test_a_model_takes_a_text_of_just_that_many_tokens(family: str, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification

    folder = tiny.save(tmp_path / family, family, "seq_classification", max_position_embeddings=70)
    longest = checkpoint.positions(json.loads((folder / "config.json").read_text()), {})
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    assert longest is not None
    for length, fits in ((longest, True), (longest + 1, False)):
        try:
            model(input_ids=torch.full((1, length), 7))
            assert fits
        except (IndexError, RuntimeError):
            assert not fits


@pytest.mark.parametrize("names", [["a", "b"], {"0": "a", "2": "c"}, {"x": "a"}])
def test_labels_that_are_no_row_of_numbers_are_refused(names: Any) -> None:
    with pytest.raises(InputError, match="id2label"):
        checkpoint.labels({"id2label": names})


def test_the_tokenizers_limit_holds_where_it_is_lower() -> None:
    assert checkpoint.positions({"max_position_embeddings": 512}, {"model_max_length": 128}) == 128


@pytest.mark.slow
@pytest.mark.parametrize("config", [{}, {"num_labels": 5}, {"id2label": {"1": "b", "0": "a"}}, {"num_labels": 1}])
def test_labels_are_those_that_transformers_reads(tmp_path: Path, config: dict[str, Any]) -> None:
    from transformers import AutoConfig

    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", **config}))
    assert checkpoint.labels(config) == dict(AutoConfig.from_pretrained(tmp_path).id2label)


def test_every_task_has_samples_of_different_lengths() -> None:
    for task in TASKS.values():
        assert len({len(json.dumps(sample)) for sample in task.samples}) == len(task.samples) >= 3
