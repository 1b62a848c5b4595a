"""Small files of a checkpoint that would take all memory, or forever, are refused with a sentence, and at once."""

from __future__ import annotations

import json
import resource
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from mar_pipeline.cache.store import Store
from mar_pipeline.errors import InputError
from mar_pipeline.model import adapter, card, labels, values
from mar_pipeline.model.checkpoint import read_json, tensors
from mar_pipeline.sources.folder import Folder
from mar_pipeline.sources.source import read_text
from mar_pipeline.workers.untrained import refuse_layers


@pytest.fixture(autouse=True)
def _little() -> Iterator[None]:
    """Within a test, little time and memory."""
    before, began = resource.getrlimit(resource.RLIMIT_DATA), time.process_time()
    pages = int(Path("/proc/self/statm").read_text().split()[5])
    resource.setrlimit(resource.RLIMIT_DATA, (pages * resource.getpagesize() + (600 << 20), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_DATA, before)
    assert time.process_time() - began < 10


def weights(folder: Path, header: bytes, size: int = 0) -> Path:
    file = folder / "model.safetensors"
    with file.open("wb") as stream:
        stream.write(struct.pack("<Q", len(header)) + header)
        stream.truncate(8 + len(header) + size)
    return file


@pytest.mark.parametrize("piece", [b"[],", b"{},", b'"",', b"0,", b"12345678,"])
def test_a_header_of_values_that_are_no_tensors_is_not_parsed(piece: bytes, tmp_path: Path) -> None:
    header = b'{"a":[' + piece * (20_000_000 // len(piece)) + b"0]}"
    with pytest.raises(InputError, match="its header does not list tensors"):
        tensors(weights(tmp_path, header), "model.safetensors")


@pytest.mark.parametrize(
    ("dtype", "shape"),
    [
        *(("F32", shape) for shape in ([10**12], [3], [-2], [1.0], [True], "2", [1] * 65, [[1]], None, {"a": 1})),
        ("NEW", [10**6]),
    ],
)
def test_a_tensor_has_the_size_of_its_shape(dtype: str, shape: Any, tmp_path: Path) -> None:
    header = json.dumps({"a": {"dtype": dtype, "shape": shape, "data_offsets": [0, 4]}}).encode()
    with pytest.raises(InputError, match=r"model\.safetensors is not a complete safetensors file: its header"):
        tensors(weights(tmp_path, header, 4), "model.safetensors")


@pytest.mark.parametrize(
    ("dtype", "shape", "size"),
    [("F32", [2, 3], 24), ("BF16", [], 2), ("F4", [4, 2], 4), ("I64", [0, 5], 0), ("NEW", [8], 1), ("F6_E2M3", [4], 3)],
)
def test_every_type_has_its_size(dtype: str, shape: list[int], size: int, tmp_path: Path) -> None:
    header = json.dumps({"a": {"dtype": dtype, "shape": shape, "data_offsets": [0, size]}}).encode()
    assert tensors(weights(tmp_path, header, size), "m")["a"]["shape"] == shape


@pytest.mark.parametrize("shape", [[10**12, 0], [0, 8]])
def test_a_head_has_no_more_labels_than_a_head_can_have(shape: list[int], tmp_path: Path) -> None:
    header = json.dumps({"classifier.weight": {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]}}).encode()
    found = tensors(weights(tmp_path, header), "m")
    for read in (labels.head, adapter.labels):
        with pytest.raises(InputError, match="a head has 1 to 100,000 labels"):
            read(found)


def test_labels_have_a_number_too() -> None:
    assert len(labels.labels({"id2label": {str(number): "a" for number in range(100_000)}})) == 100_000
    with pytest.raises(InputError, match="100,001 labels"):
        labels.labels({"id2label": {str(number): "a" for number in range(100_001)}})


@pytest.mark.parametrize("size", [1 << 25, 1 << 40])
def test_a_settings_file_has_a_size(size: int, tmp_path: Path) -> None:
    with (tmp_path / "config.json").open("wb") as file:
        file.truncate(size)
    with pytest.raises(InputError, match="larger than 16,777,216 bytes"):
        read_json(tmp_path / "config.json")


def test_a_text_of_a_source_has_a_size(tmp_path: Path) -> None:
    with (tmp_path / "config.json").open("wb") as file:
        file.truncate(1 << 40)
    source = Folder(Store(tmp_path / "cache"), tmp_path, "here", {"kind": "folder"})
    with pytest.raises(InputError, match=r"here/config\.json has 1,099,511,627,776 bytes"):
        read_text(source, "config.json")


def test_a_sparse_file_of_weights_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", 20 * 10**9))
        file.truncate(20 * 10**9 + 8)
    source = Folder(Store(tmp_path / "cache"), tmp_path, "here", {"kind": "folder"})
    source.sizes()
    with pytest.raises(InputError, match="an invalid length"):
        source.fetch({"model.safetensors": "model.safetensors"}, lambda *_: None)


def test_only_the_head_of_a_card_is_read_and_its_aliases_are_not_written_out(tmp_path: Path) -> None:
    bomb = "a0: &a0 {x: 1}\n" + "".join(
        f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 12)
    )
    assert card.license_in(f"---\nlicense: mit\n{bomb}---\n") == "mit"
    (tmp_path / "README.md").write_text("---\nlicense: mit\n" + "key: [a, b, c]\n" * 400_000 + "---\n")
    source = Folder(Store(tmp_path / "cache"), tmp_path, "here", {"kind": "folder"})
    assert source.license() in ("mit", None)
    with (tmp_path / "README.md").open("wb") as file:
        file.truncate(1 << 40)
    assert source.license() is None


@pytest.mark.parametrize(
    "head",
    [
        "license: mit",
        "license: [mit, apache-2.0]",
        "license: other\nlicense_name: own",
        "license: 5",
        "license:",
        "- a",
        "license: {a: b}",
        "license: [1, x, [y]]",
        "license: yes",
        "a: &x [1]\nlicense: *x",
        "license: a\nlicense: b",
    ],
)
def test_a_licence_is_read_as_yaml_reads_it(head: str) -> None:
    whole = yaml.safe_load(head)
    expected = card.license_of(whole) if isinstance(whole, dict) else None
    assert card.license_in(f"---\n{head}\n---\ntext") == expected


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"init_lora_weights": "pissa_niter_100000"}, "init_lora_weights"),
        ({"init_lora_weights": "pissa_niter_" + "9" * 50}, "init_lora_weights"),
        ({"layer_replication": [[0, 2]] * 20_000}, "layer_replication"),
        ({"layer_replication": [[0, 10**9]]}, "layer_replication"),
        ({"layer_replication": 5}, "layer_replication"),
        ({"layer_replication": [["a", "b"]]}, "layer_replication"),
        ({"r": 10**9}, "r"),
        ({"num_virtual_tokens": 10**6}, "num_virtual_tokens"),
        ({"rank_pattern": {"query": 10**7}}, "query"),
    ],
)
def test_settings_of_an_adapter_that_would_take_forever_are_refused(settings: dict[str, Any], name: str) -> None:
    with pytest.raises(InputError, match=f"^{name} in the adapter's adapter_config.json is "):
        adapter.refuse_strange(settings, {"a": {"shape": [8, 768]}})


@pytest.mark.parametrize(
    "settings",
    [
        {"r": 8, "lora_alpha": 100_000, "init_lora_weights": "pissa_niter_16", "layer_replication": [[0, 8], [4, 12]]},
        {"r": 5000, "init_lora_weights": True, "rank_pattern": {"a": 4}, "layer_replication": None, "seed": 10**9},
        {"init_lora_weights": "gaussian", "alpha_pattern": {"a": 10**9}, "target_modules": ["query"]},
    ],
)
def test_settings_of_an_adapter_that_peft_writes_pass(settings: dict[str, Any]) -> None:
    adapter.refuse_strange(settings, {"a": {"shape": [5000, 768]}})


@pytest.mark.parametrize(
    "config",
    [
        {"hidden_size": 0},
        {"hidden_size": -768},
        {"hidden_size": "768"},
        {"hidden_size": 768.5},
        {"num_hidden_layers": True},
        {"vocab_size": 10**10},
        {"n_embd": {}},
    ],
    ids=str,
)
def test_sizes_that_no_model_has_are_refused(config: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="is not a number from 1 to 1,000,000,000"):
        values.refuse_strange(config)


@pytest.mark.parametrize(
    "key", ["max_new_tokens", "max_length", "top_k", "temperature", "top_p", "repetition_penalty", "eos_token_id"]
)
@pytest.mark.parametrize("value", [10**400, -(10**400), 2**63])
def test_numbers_of_generation_fit_into_a_tensor(key: str, value: int) -> None:
    with pytest.raises(InputError, match=f"{key} in the checkpoint's generation_config.json is"):
        values.refuse_strange({key: value}, "generation_config.json", generates=True)
    values.refuse_strange({key: 2**31}, "generation_config.json", generates=True)


@pytest.mark.parametrize(
    "name",
    [
        "num_hidden_layers",
        "n_layer",
        "n_layers",
        "num_layers",
        "encoder_layers",
        "num_local_experts",
        "n_routed_experts",
    ],
)
def test_a_model_has_no_more_layers_than_its_checkpoint_has_weights(name: str) -> None:
    with pytest.raises(InputError, match="1,000,000 layers or experts, and the checkpoint has 39 weights"):
        refuse_layers({"text_config": {name: 10**6}}, 39)
    refuse_layers({name: 39}, 39)
