"""Checkpoints: what their files are, and what their settings say."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError, safe_open

from mar_pipeline.audit.tensors import tensors as in_archives
from mar_pipeline.errors import InputError
from mar_pipeline.model import checkpoint, labels
from mar_pipeline.tasks import TASKS
from tests.support import tiny


def safetensors(path: Path, cut: int = 0) -> Path:
    header = json.dumps({"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}).encode()
    data = struct.pack("<Q", len(header)) + header + bytes(16)
    path.write_bytes(data[: len(data) - cut])
    return path


def test_the_header_of_a_whole_file_is_read(tmp_path: Path) -> None:
    assert checkpoint.tensors(safetensors(tmp_path / "m.safetensors"), "m")["w"]["shape"] == [4]


@pytest.mark.parametrize("cut", [1, 16, 20, 70])
def test_a_file_that_is_cut_short_is_found_without_reading_it(tmp_path: Path, cut: int) -> None:
    with pytest.raises(InputError, match=r"^adapter/m\.safetensors is not a complete safetensors file"):
        checkpoint.tensors(safetensors(tmp_path / "m.safetensors", cut), "adapter/m.safetensors")


ODD = {
    "a gap": {"a": [0, 4], "b": [8, 12]},
    "an overlap": {"a": [0, 8], "b": [4, 12]},
    "backwards": {"a": [0, 16], "b": [16, 12]},
    "fractions": {"a": [0.0, 12.0]},
    "texts": {"a": ["0", "12"]},
    "three offsets": {"a": [0, 4, 12]},
    "none": {"a": None},
}


@pytest.mark.parametrize("offsets", ODD.values(), ids=ODD)
def test_tensors_that_safetensors_does_not_read_are_refused(tmp_path: Path, offsets: dict[str, Any]) -> None:
    file = tmp_path / "m.safetensors"
    header = json.dumps({name: {"dtype": "U8", "shape": [4], "data_offsets": at} for name, at in offsets.items()})
    file.write_bytes(struct.pack("<Q", len(header)) + header.encode() + bytes(12))
    with pytest.raises(SafetensorError):
        safe_open(file, "np")
    with pytest.raises(InputError, match="not a complete safetensors file"):
        checkpoint.tensors(file, "m.safetensors")
    with file.open("rb") as stream, pytest.raises(ValueError, match="not a safetensors file"):
        in_archives(stream)


def test_a_header_is_never_longer_than_the_format_has_it(tmp_path: Path) -> None:
    file = tmp_path / "m.safetensors"
    with file.open("wb") as stream:
        stream.write(struct.pack("<Q", 100_000_001))
        stream.truncate(1 << 30)
    with pytest.raises(SafetensorError):
        safe_open(file, "np")
    with pytest.raises(InputError, match="an invalid length"):
        checkpoint.tensors(file, "m.safetensors")


def test_json_that_is_nested_without_end_is_an_error_and_no_fault(tmp_path: Path) -> None:
    deep = b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    (tmp_path / "config.json").write_bytes(deep)
    with pytest.raises(InputError, match="cannot be read as JSON"):
        checkpoint.read_json(tmp_path / "config.json")
    (tmp_path / "m.safetensors").write_bytes(struct.pack("<Q", len(deep)) + deep)
    with pytest.raises(InputError, match="not a complete safetensors file"):
        checkpoint.tensors(tmp_path / "m.safetensors", "m.safetensors")


def test_a_git_lfs_pointer_is_told_from_weights(tmp_path: Path) -> None:
    (tmp_path / "m.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 12\n")
    with pytest.raises(InputError, match="git lfs pull"):
        checkpoint.tensors(tmp_path / "m.safetensors", "m.safetensors")


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
        labels.labels({"id2label": names})


def test_the_tokenizers_limit_holds_where_it_is_lower() -> None:
    assert checkpoint.positions({"max_position_embeddings": 512}, {"model_max_length": 128}) == 128


@pytest.mark.slow
@pytest.mark.parametrize("config", [{}, {"num_labels": 5}, {"id2label": {"1": "b", "0": "a"}}, {"num_labels": 1}])
def test_labels_are_those_that_transformers_reads(tmp_path: Path, config: dict[str, Any]) -> None:
    from transformers import AutoConfig

    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", **config}))
    assert labels.labels(config) == dict(AutoConfig.from_pretrained(tmp_path).id2label)


def test_every_task_has_samples_of_different_lengths() -> None:
    for task in TASKS.values():
        assert len({len(json.dumps(sample)) for sample in task.samples}) == len(task.samples) >= 3
