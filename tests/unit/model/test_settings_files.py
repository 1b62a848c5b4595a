"""What of a checkpoint's JSON settings reaches a loader, or an archive: no name of a file, no code, no other model."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from mar_pipeline.errors import InputError
from mar_pipeline.model import settings_files
from mar_pipeline.model.settings_files import filtered
from mar_pipeline.tasks import TASKS

STARTERS = Path(settings_files.__file__).parents[1] / "starters"
NAMES = ("config.json", "generation_config.json", "tokenizer_config.json", "special_tokens_map.json")
ADAPTER = "adapter/adapter_config.json"
PATH = "/home/me/.aws/credentials"

# As they are on the Hub: google-bert, a fine-tuned RoBERTa of older days, Qwen2, Llama 3, Gemma 2, NLLB, DeBERTa,
# Funnel.
TOKENIZERS: dict[str, dict[str, Any]] = {
    "bert": {
        "do_lower_case": True, "unk_token": "[UNK]", "model_max_length": 512, "strip_accents": None,
        "tokenize_chinese_chars": True, "never_split": None, "tokenizer_class": "BertTokenizer",
    },
    "roberta": {
        "errors": "replace", "add_prefix_space": False, "trim_offsets": True, "tokenizer_class": "RobertaTokenizer",
        "mask_token": {"__type": "AddedToken", "content": "<mask>", "lstrip": True, "rstrip": False,
                       "single_word": False, "normalized": False},
    },
    "qwen": {
        "add_bos_token": False, "bos_token": None, "eos_token": "<|im_end|>", "split_special_tokens": False,
        "added_tokens_decoder": {"151643": {"content": "<|endoftext|>", "lstrip": False, "special": True}},
        "additional_special_tokens": ["<|im_start|>", "<|im_end|>"],
        "chat_template": "{% for m in messages %}{{ '/' + m['content'] }}{% endfor %}",
        "model_max_length": 32768, "tokenizer_class": "Qwen2Tokenizer",
    },
    "templates": {
        "chat_template": [{"name": "default", "template": "{{ messages }}"}, {"name": "tool_use", "template": "/a/b"}],
        "model_input_names": ["input_ids", "attention_mask"], "tokenizer_class": "PreTrainedTokenizerFast",
        "padding_side": "left", "truncation_side": "left", "clean_up_tokenization_spaces": True,
    },
    "gemma": {
        "extra_special_tokens": {"image_token": "<image_soft_token>", "boi_token": "<start/of>"},
        "sp_model_kwargs": {"enable_sampling": True, "alpha": 0.1}, "legacy": None,
        "spaces_between_special_tokens": False,
        "image_token": "<image>", "processor_class": "Gemma3Processor", "tokenizer_class": "GemmaTokenizerFast",
    },
    "nllb": {"src_lang": "eng_Latn", "tgt_lang": "fra_Latn", "sp_model_kwargs": {}, "tokenizer_class": "NllbTokenizer"},
    "deberta": {"do_lower_case": False, "vocab_type": "spm", "split_by_punct": False, "sp_model_kwargs": {}},
    "funnel": {"do_lower_case": True, "wordpieces_prefix": "##", "never_split": ["[X/Y]"], "cls_token": "<cls>"},
    "5": {"backend": "tokenizers", "is_local": True, "tokenizer_class": "TokenizersBackend", "tokenizer_file": None},
}  # fmt: skip
CONFIGS: dict[str, dict[str, Any]] = {
    "labels": {
        "model_type": "bert", "architectures": ["BertForSequenceClassification"], "hidden_act": "gelu_new",
        "id2label": {"0": "yes/no", "1": "/etc/passwd", "2": "auto_map"},
        "label2id": {"yes/no": 0, "vocab_file": 1, "trust_remote_code": 2},
        "problem_type": "single_label_classification", "torch_dtype": "torch.float32", "transformers_version": "4.57.6",
    },
    "deberta": {"model_type": "deberta-v2", "pos_att_type": "p2c|c2p", "norm_rel_ebd": "layer_norm", "drop_path": 0.1},
    "llama": {
        "model_type": "llama", "eos_token_id": [128001, 128009], "attn_implementation": "paged|sdpa",
        "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "long_factor": [1.0, 2.5]},
        "layer_types": ["full_attention", "sliding_attention"], "hybrid_override_pattern": "M-M*-M",
    },
    "opt": {"model_type": "opt", "prefix": "</s>", "activation_function": "relu", "word_embed_proj_dim": 512},
    "t5": {"model_type": "t5", "task_specific_params": {"translation": {"prefix": "translate English to German: "}}},
    "composite": {
        "model_type": "gemma3", "text_config": {"model_type": "gemma3_text", "hidden_activation": "gelu_pytorch_tanh"},
        "vision_config": {"model_type": "siglip_vision_model", "drop_path_rate": [0.0, 0.1]},
    },
    "quantized": {
        "model_type": "llama",
        "quantization_config": {
            "quant_method": "compressed-tensors", "format": "float-quantized", "ignore": ["re:.*lm_head"],
            "config_groups": {"group_0": {"targets": [r"re:.*\.q_proj$"], "weights": {"strategy": "channel"}}},
        },
    },
}  # fmt: skip
ADAPTERS: dict[str, dict[str, Any]] = {
    "lora": {
        "peft_type": "LORA", "task_type": "SEQ_CLS", "r": 4, "lora_alpha": 8, "bias": "none", "inference_mode": True,
        "target_modules": r"model\.layers\.(0|1)/?.*q_proj", "modules_to_save": ["classifier"], "use_dora": False,
        "rank_pattern": {r"^layers\.0": 2}, "layers_pattern": None, "init_lora_weights": "pissa_niter_4",
        "trainable_token_indices": {"embed_tokens": [0, 1]}, "loftq_config": {}, "peft_version": "0.17.1@UNKNOWN",
    },
}  # fmt: skip


@pytest.mark.parametrize("told", TOKENIZERS.values(), ids=TOKENIZERS)
def test_settings_of_tokenizers_stay_as_they_are(told: dict[str, Any]) -> None:
    assert filtered(told, "tokenizer_config.json") == (told, [])


@pytest.mark.parametrize("told", CONFIGS.values(), ids=CONFIGS)
def test_settings_of_models_stay_as_they_are(told: dict[str, Any]) -> None:
    assert filtered(told, "config.json") == (told, [])


def test_an_adapters_settings_stay_as_they_are() -> None:
    told = ADAPTERS["lora"]
    kept, gone = filtered(told, ADAPTER)
    assert kept == {key: value for key, value in told.items() if key not in gone}
    assert set(gone) <= {"peft_version"}  # of a build from source, which nothing reads


@pytest.mark.parametrize("task", TASKS)
def test_a_starters_files_keep_their_bytes(task: str, tmp_path: Path) -> None:
    before = {}
    for file in (STARTERS / task).glob("*.json"):
        before[file.name] = file.read_bytes()
        (tmp_path / file.name).write_bytes(before[file.name])
    assert settings_files.sanitize(tmp_path, "it") == []
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def packages() -> Iterator[Path]:
    """The installed transformers, and the older line where `make test` has put it."""
    spec = find_spec("transformers")
    assert spec is not None
    assert spec.origin is not None
    yield Path(spec.origin).parent
    if (older := Path(sys.prefix) / "older" / "transformers").is_dir():
        yield older


def named_by_transformers() -> set[str]:
    """The keys of every tokenizer's `vocab_files_names`, out of the source of transformers."""
    table = re.compile(r"(?:VOCAB_FILES_NAMES|vocab_files_names) = \{(.*?)\}", re.DOTALL)
    files = [file for package in packages() for file in package.glob("models/*/tokenization_*.py")]
    told = [part for file in files for part in table.findall(file.read_text(encoding="utf-8"))]
    return set(re.findall(r'"(\w+)":', "".join(told)))


@pytest.mark.parametrize("name", ["tokenizer_config.json", "special_tokens_map.json"])
def test_no_key_that_a_tokenizer_opens_passes_whatever_it_holds(name: str) -> None:
    keys = named_by_transformers()
    assert {"vocab_file", "merges_file", "spm_file", "source_spm", "vocab"} <= keys
    # A number is a file by its descriptor, and true is 1.
    for value in (PATH, "vocab.txt", 0, True, [PATH], {"a": PATH}, "", "http://127.0.0.1/x"):
        for key in keys:
            assert filtered({key: value, "x": {key: value}}, name)[0] == {}, (key, value)


@pytest.mark.parametrize("name", [*NAMES, ADAPTER])
@pytest.mark.parametrize(
    "key",
    ["name_or_path", "_name_or_path", "tokenizer_name_or_path", "base_model_name_or_path", "some_file", "any_files",
     "sudachi_config_path", "gguf_file", "cache_dir", "chat_template_file", "configuration_files", "model_file",
     "fast_tokenizer_files", "cache_file", "covariance_file", "prompt_tuning_init_state_dict_path"],
)  # fmt: skip
def test_no_text_passes_under_a_key_that_names_files_or_models(name: str, key: str) -> None:
    for value in (PATH, "secret.txt", "acme/model", [PATH], {"deep": PATH}, ""):
        told = {key: value, "a": {"b": [{key: value}]}, "kept": None}
        assert filtered(told, name)[0] == {"kept": None}


@pytest.mark.parametrize("name", [*NAMES, ADAPTER])
@pytest.mark.parametrize(
    "value",
    [PATH, "~/.ssh/id_rsa", "../x", "..", "..\\x", "C:\\x", "file:///x", "acme/kernel:f", "local-dir:x", "a\nb", "a\0"],
)
def test_no_text_that_could_name_a_file_passes_under_any_other_key(name: str, value: str) -> None:
    told = {"backbone": value, "attn_implementation": value, "a": {"b": [value, {"c": value}]}, "kept": 1}
    assert filtered(told, name)[0] == {"kept": 1}


@pytest.mark.parametrize(
    "name", ["tokenizer_config.json", "special_tokens_map.json", ADAPTER, "generation_config.json"]
)
def test_a_text_under_a_key_that_nobody_knows_goes_even_if_it_is_a_word(name: str) -> None:
    assert filtered({"shadow_model": "gpt2", "adapters": {"a": "b"}, "megatron_core": "os"}, name)[0] == {}


def test_what_a_constructor_would_take_by_place_goes() -> None:
    assert filtered({"init_inputs": [0, PATH]}, "tokenizer_config.json")[0] == {}
    assert filtered({"sp_model_kwargs": {"model_file": PATH, "alpha": 0.1}}, "tokenizer_config.json")[0] == {
        "sp_model_kwargs": {"alpha": 0.1}
    }


@pytest.mark.parametrize(
    "named", ["os.system", "Trainer", "AutoModel", "LightGlueConfig", "pipeline", "../x", 3, ["a"]]
)
def test_a_tokenizers_class_is_a_tokenizer(named: Any) -> None:
    for name in ("tokenizer_config.json", "config.json"):
        assert "tokenizer_class" not in filtered({"tokenizer_class": named}, name)[0]


def test_a_templates_name_is_no_path_for_it_is_a_files_when_it_is_saved() -> None:
    good = {"name": "default", "template": "x"}
    told = {"chat_template": [{"name": "../../x", "template": "y"}, good]}
    assert filtered(told, "tokenizer_config.json")[0] == {"chat_template": [good]}
    assert filtered({"chat_template": {"../x": "y"}}, "tokenizer_config.json")[0] == {}


def folder(tmp_path: Path, name: str, told: Any) -> Path:
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True, parents=True)
    file.write_text(told if isinstance(told, str) else json.dumps(told))
    return tmp_path


@pytest.mark.parametrize(
    ("name", "told", "key"),
    [
        ("config.json", {"trust_remote_code": True}, "trust_remote_code"),
        ("config.json", {"a": [{"trust_remote_code": 1}]}, "trust_remote_code"),
        ("config.json", {"text_config": {"auto_map": {"AutoConfig": "own.C"}}}, "auto_map"),
        ("tokenizer_config.json", {"a": {"auto_map": {"AutoTokenizer": ["own.T", None]}}}, "auto_map"),
        ("tokenizer_config.json", {"trust_remote_code": True}, "trust_remote_code"),
        ("special_tokens_map.json", {"auto_map": {"AutoTokenizer": "own.T"}}, "auto_map"),
        ("generation_config.json", {"trust_remote_code": "yes"}, "trust_remote_code"),
        (ADAPTER, {"trust_remote_code": True}, "trust_remote_code"),
    ],
)
def test_settings_that_ask_for_code_to_be_run_are_refused_unless_it_is_trusted(
    tmp_path: Path, name: str, told: Any, key: str
) -> None:
    with pytest.raises(InputError) as error:
        settings_files.sanitize(folder(tmp_path, name, told), "acme/model")
    assert f"acme/model/{name} asks to run the model's own code" in error.value.what
    assert key in error.value.what
    assert "handler.trust_remote_code: true" in error.value.fix
    settings_files.sanitize(tmp_path, "acme/model", trusted=True)


def test_that_code_is_not_trusted_may_be_said(tmp_path: Path) -> None:
    told = {"trust_remote_code": False, "vision_config": {"auto_map": None, "trust_remote_code": False}}
    assert settings_files.sanitize(folder(tmp_path, "config.json", told), "it") == []


def test_with_trust_another_model_is_not_loaded_by_its_name_and_own_settings_stay(tmp_path: Path) -> None:
    told = {
        "_name_or_path": PATH, "part": {"_name_or_path": PATH, "auto_map": {"AutoConfig": "own.C"}},
        "vision_tower": "acme/tower", "lookup_file": "table.bin",
    }  # fmt: skip
    settings_files.sanitize(folder(tmp_path, "config.json", told), "it", trusted=True)
    assert json.loads((tmp_path / "config.json").read_text()) == {
        "part": {"auto_map": {"AutoConfig": "own.C"}}, "vision_tower": "acme/tower", "lookup_file": "table.bin",
    }  # fmt: skip
    settings_files.sanitize(
        folder(tmp_path, "tokenizer_config.json", {"vocab_file": PATH, "own": "a/b"}), "it", trusted=True
    )
    assert json.loads((tmp_path / "tokenizer_config.json").read_text()) == {"own": "a/b"}


def test_leftovers_go_without_a_word_and_what_may_have_meant_something_is_told(tmp_path: Path) -> None:
    left = {
        "_name_or_path": "/root/run",
        "special_tokens_map_file": "/root/.cache/x",
        "text_config": {"_name_or_path": ""},
    }
    assert settings_files.sanitize(folder(tmp_path, "config.json", left), "it") == []
    told = settings_files.sanitize(folder(tmp_path, "config.json", {"attn_implementation": "acme/kernel"}), "it")
    assert told == ["config.json: attn_implementation"]


@pytest.mark.parametrize("text", ["[1]", "{", "\udcff", '{"a":' * 100_000])
def test_settings_that_cannot_be_read_are_refused_in_a_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text, errors="surrogateescape")
    with pytest.raises(InputError, match="acme/model"):
        settings_files.sanitize(tmp_path, "acme/model")


def test_settings_as_deep_as_json_may_be_are_read_or_refused(tmp_path: Path) -> None:
    for depth in range(50, 1000, 50):
        with suppress(InputError):
            settings_files.sanitize(folder(tmp_path, "config.json", '{"a":' * depth + "1" + "}" * depth), "acme/model")
