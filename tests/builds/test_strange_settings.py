"""Strange values in config.json: the model is loaded as transformers loads it, or refused with a sentence."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mar_pipeline.builder import resolve
from mar_pipeline.errors import InputError
from mar_pipeline.model.checkpoint import read_json
from mar_pipeline.workers.loading import model
from tests.support import tiny
from tests.support.mar import Mar

pytestmark = pytest.mark.slow

FAMILIES = {"bert": "seq_classification", "gpt2": "text_generation", "llama": "text_generation"}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("sound")
    return {family: tiny.save(folder / family, family, task) for family, task in FAMILIES.items()}


def changed(source: Path, folder: Path, **changes: Any) -> Path:
    shutil.copytree(source, folder, dirs_exist_ok=True)
    config = json.loads((source / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    return folder


def job(folder: Path, task: str, **more: Any) -> dict[str, Any]:
    plain = {"allow_untrained_head": False, "num_labels": None, "labels": None}
    return {"checkpoint": str(folder), "auto_class": tiny.AUTO[task], **plain, **more}


def inputs(folder: Path) -> Any:
    """A folder as the result of the download stage."""
    settings = SimpleNamespace(longest=None)
    config = SimpleNamespace(handler=settings, model=SimpleNamespace(name="here"))
    read = lambda _stage, name: read_json(folder / name) if (folder / name).exists() else {}  # noqa: E731
    return SimpleNamespace(config=config, read_json=read)


def sentence(error: InputError) -> None:
    assert error.what.strip()
    assert "\n" not in error.what
    assert error.fix


@pytest.mark.parametrize(
    ("key", "value", "word"),
    [
        ("max_position_embeddings", "128", 'max_position_embeddings in the checkpoint\'s config.json is "128"'),
        ("max_position_embeddings", -1, "is -1, which is not a positive number"),
        ("max_position_embeddings", 64.0, "64.0"),
        ("max_position_embeddings", True, "true"),
        ("max_position_embeddings", [64], "[64]"),
        ("max_position_embeddings", 10**12, "not a positive number"),
        ("n_positions", "x", "n_positions"),
        ("pad_token_id", "0", "pad_token_id"),
        ("pad_token_id", [0], "pad_token_id"),
        ("architectures", 5, "architectures"),
        ("model_type", ["bert"], "model_type"),
        ("dtype", 32, "dtype"),
        ("quantization_config", "gptq", "quantization_config"),
    ],
)
def test_what_this_package_reads_itself_is_checked(
    checkpoints: dict[str, Path], key: str, value: Any, word: str, tmp_path: Path
) -> None:
    folder = changed(checkpoints["bert"], tmp_path / "bert", **{"max_position_embeddings": None, key: value})
    with pytest.raises(InputError) as caught:
        resolve.max_length(inputs(folder))
    assert word in caught.value.what
    sentence(caught.value)


@pytest.mark.parametrize("value", [math.nan, [0.0, math.nan], {"a": {"b": [math.nan]}}], ids=str)
@pytest.mark.parametrize("key", ["layer_norm_eps", "rope_parameters", "anything"])
def test_nan_is_no_setting_and_infinity_may_be_one(
    checkpoints: dict[str, Path], key: str, value: Any, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=f"{key} in the checkpoint's config"):
        resolve.max_length(inputs(changed(checkpoints["bert"], tmp_path / "bert", **{key: value})))
    fine = changed(checkpoints["bert"], tmp_path / "bert", time_step_limit=[0.0, math.inf])
    assert resolve.max_length(inputs(fine)) == 64


@pytest.mark.parametrize(
    ("limit", "right"), [(0, True), (0.5, True), (True, True), (1, False), (3.9, False), (4, True)]
)
def test_a_limit_too_small_for_any_text_is_refused_and_one_without_a_meaning_is_ignored(
    checkpoints: dict[str, Path], limit: Any, right: bool, tmp_path: Path
) -> None:
    folder = changed(checkpoints["bert"], tmp_path / "bert")
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": limit}))
    if right:
        assert resolve.max_length(inputs(folder)) == (4 if limit == 4 else 64)
    else:
        with pytest.raises(InputError, match="model_max_length in its tokenizer_config"):
            resolve.max_length(inputs(folder))


@pytest.mark.parametrize(
    ("family", "key"),
    [
        ("bert", "num_hidden_layers"),
        ("gpt2", "n_layer"),
        ("llama", "num_hidden_layers"),
        ("bert", "vocab_size"),
        ("bert", "max_position_embeddings"),
        ("gpt2", "n_positions"),
        ("llama", "intermediate_size"),
    ],
)
def test_a_model_much_larger_than_its_weights_is_refused_before_it_is_built(
    checkpoints: dict[str, Path], family: str, key: str, tmp_path: Path
) -> None:
    folder = changed(checkpoints[family], tmp_path / family, **{key: 10**9})
    with pytest.raises(InputError, match=r"config\.json describes"):
        model(job(folder, FAMILIES[family]))


def test_long_positions_that_are_no_weights_are_fine(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    folder = changed(checkpoints["llama"], tmp_path / "llama", max_position_embeddings=10**7, bos_token_id=10**9)
    model(job(folder, "text_generation"))


def test_the_name_of_the_class_may_be_a_plain_text() -> None:
    from mar_pipeline.model import checkpoint
    from mar_pipeline.sources import task

    one = {"architectures": "BertForSequenceClassification"}
    assert checkpoint.task_of(one) == checkpoint.task_of({"architectures": [one["architectures"]]}) is not None
    assert task._named({"architectures": "BertModel"}, False) == "BertModel"
    assert task._named({"architectures": 5}, False) == task._named({}, False) == "no architecture"


def test_an_index_without_metadata_is_named(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    folder = tmp_path / "bert"
    whole = AutoModelForSequenceClassification.from_pretrained(checkpoints["bert"])
    whole.save_pretrained(folder, max_shard_size="20KB")
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    del index["metadata"]
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError) as caught:
        model(job(folder, "seq_classification"))
    assert "index of weights has no metadata" in caught.value.why


QUANTIZED = {
    "bitsandbytes": ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes"),
    "bitsandbytes without its name": ({"load_in_8bit": True}, "bitsandbytes"),
    "gptq": ({"quant_method": "gptq", "bits": 4, "group_size": 128}, "optimum"),
    "awq": ({"quant_method": "awq", "bits": 4, "group_size": 128}, ""),
    "compressed-tensors": ({"quant_method": "compressed-tensors"}, "compressed-tensors"),
    "torchao": ({"quant_method": "torchao", "quant_type": {"default": {"_type": "Int8WeightOnlyConfig"}}}, "torchao"),
    "hqq": ({"quant_method": "hqq", "quant_config": {"weight_quant_params": {"nbits": 4}}}, "HQQ"),
    "aqlm": ({"quant_method": "aqlm"}, "aqlm"),
    "quanto": ({"quant_method": "quanto", "weights": "int8"}, "quanto"),
    "higgs": ({"quant_method": "higgs", "bits": 4}, "GPU"),
    "spqr": ({"quant_method": "spqr"}, "GPU"),
    "vptq": ({"quant_method": "vptq"}, "vptq"),
    "bitnet": ({"quant_method": "bitnet"}, ""),
    "no method": ({"bits": 4}, "quant_method"),
    "strange bits": ({"quant_method": "gptq", "bits": "four"}, "four"),
}


@pytest.mark.parametrize("kind", QUANTIZED)
def test_a_quantized_checkpoint_without_its_package_is_refused_with_the_package_and_nothing_misleading(
    checkpoints: dict[str, Path], kind: str, tmp_path: Path
) -> None:
    settings, word = QUANTIZED[kind]
    folder = changed(checkpoints["llama"], tmp_path / "llama", quantization_config=settings)
    with pytest.raises(InputError) as caught:
        model(job(folder, "text_generation"))
    assert word in caught.value.what
    assert "quantized" in caught.value.why
    assert not any(wrong in str(caught.value) for wrong in ("--task", "no such head", "saved in part"))
    with pytest.raises(InputError, match="a traced graph cannot hold"):
        resolve.refuse_quantized(inputs(folder))


@pytest.mark.parametrize("settings", [None, {"quant_method": "fp8"}, {"quant_method": "mxfp4"}])
def test_weights_that_are_plain_on_a_cpu_can_be_traced(
    checkpoints: dict[str, Path], settings: Any, tmp_path: Path
) -> None:
    resolve.refuse_quantized(inputs(changed(checkpoints["llama"], tmp_path / "llama", quantization_config=settings)))


KINDS = ["flash_attention_2", "flash_attention_3", "nonsense", "kernels-community/flash-attn", 3]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("within", [lambda value: value, lambda value: {"text_config": value}], ids=["top", "nested"])
def test_attention_that_is_not_available_is_refused_with_the_setting_that_overrides_it(
    checkpoints: dict[str, Path], kind: Any, within: Callable[[Any], Any], tmp_path: Path
) -> None:
    folder = changed(checkpoints["bert"], tmp_path / "bert", **within({"_attn_implementation": kind}))
    if within({}) == {}:
        with pytest.raises(InputError, match="cannot load this checkpoint") as caught:
            model(job(folder, "seq_classification"))
        assert str(kind) in caught.value.why
        assert "handler.attn_implementation: sdpa" in caught.value.fix
    for setting in ("sdpa", "eager"):
        loaded = model(job(folder, "seq_classification", attn_implementation=setting))
        assert loaded.config._attn_implementation == setting


def test_a_setting_that_the_architecture_has_not_is_named(tmp_path: Path) -> None:
    folder = tiny.save(tmp_path / "mpnet", "mpnet", "seq_classification")
    with pytest.raises(InputError) as caught:
        model(job(folder, "seq_classification", attn_implementation="sdpa"))
    assert "handler.attn_implementation is sdpa" in caught.value.why


def test_an_archive_computes_attention_as_the_setting_says_whatever_config_json_asks_for(
    checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    folder = changed(checkpoints["bert"], tmp_path / "bert", _attn_implementation="flash_attention_2")
    Mar(tmp_path).build("--model", folder, "--set", "handler.attn_implementation=sdpa")
