"""Which files of a repository or a folder are taken, and as what."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mar_pipeline.errors import InputError
from mar_pipeline.model import checkpoint, selection
from mar_pipeline.model.remote_code import with_code
from mar_pipeline.model.selection import Base, Selection

WHOLE = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "README.md", "optimizer.pt"]
LEFT_BY_A_TRAINER = [
    "optimizer.pt", "scheduler.pt", "scaler.pt", "rng_state.pth", "rng_state_0.pth", "trainer_state.json",
    "training_args.bin",
]  # fmt: skip
ADAPTER = ["adapter_config.json", "adapter_model.safetensors", "README.md"]


def select(files: list[str] | dict[str, Any], **options: bool) -> Selection:
    """The selection of a repository with these files; what is no text is JSON."""
    texts = dict.fromkeys(files, "") if isinstance(files, list) else files

    def text(path: str) -> str:
        return texts[path] if isinstance(texts[path], str) else json.dumps(texts[path])

    return selection.select(list(texts), "some/model", text, **options)


def taken(files: list[str] | dict[str, Any], **options: bool) -> list[str]:
    return sorted(select(files, **options).files)


def refused(files: list[str] | dict[str, Any], **options: bool) -> InputError:
    """The error that they give, which is short and has a next step."""
    with pytest.raises(InputError) as caught:
        select(files, **options)
    assert len(str(caught.value).splitlines()) <= 3
    assert caught.value.fix
    return caught.value


def test_only_what_an_archive_needs_is_taken() -> None:
    assert taken(WHOLE) == ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]


def test_of_a_trainers_checkpoint_nothing_is_taken_that_only_training_needs() -> None:
    assert taken([*WHOLE, *LEFT_BY_A_TRAINER]) == taken(WHOLE)
    assert taken([*WHOLE, *LEFT_BY_A_TRAINER], pickles=True) == taken(WHOLE)


def test_a_trainers_outer_folder_is_told_from_its_checkpoints_and_the_newest_is_named() -> None:
    files = [f"checkpoint-{number}/{name}" for number in (500, 90, 1000) for name in WHOLE]
    error = refused([*files, "runs/events.out", "checkpoint-2000"])
    assert error.what == (
        "some/model has no config.json, but has checkpoint-90, checkpoint-500, checkpoint-1000 of a training run."
    )
    assert error.fix.endswith("some/model/checkpoint-1000")
    assert "download it first if the model is on the Hub" in error.fix


def test_a_checkpoint_with_a_number_that_is_none_is_named_too() -> None:
    assert "has checkpoint-², checkpoint-7 of" in refused(["checkpoint-²/config.json", "checkpoint-7/config.json"]).what


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ([f for f in WHOLE if f != "config.json"], "has no config.json"),
        ([f for f in WHOLE if not f.startswith("tokenizer")], "has no tokenizer"),
        (["config.json", "tokenizer.json", "pytorch_model.bin"], "pickled (pytorch_model.bin)"),
        (["config.json", "tokenizer.json", "tf_model.h5"], "are TensorFlow's (tf_model.h5)"),
        (["config.json", "tokenizer.json", "saved_model.pb"], "are TensorFlow's (saved_model.pb)"),
        (["config.json", "tokenizer.json", "flax_model.msgpack"], "are Flax's (flax_model.msgpack)"),
        (["config.json", "tokenizer.json", "model.onnx"], "are ONNX's (model.onnx)"),
        (["config.json", "tokenizer.json", *LEFT_BY_A_TRAINER], "It has no weight files"),
        (["config.json", "tokenizer.json"], "It has no weight files"),
        (["config.json", "tokenizer.json", "model-00001-of-00002.safetensors"], "no index that lists"),
    ],
)
def test_what_is_missing_is_said_in_at_most_three_lines_with_the_next_step(files: list[str], said: str) -> None:
    assert said in str(refused(files))


def test_what_to_do_with_a_pickle_is_what_helps() -> None:
    files = ["config.json", "tokenizer.json"]
    assert "handler.allow_pickle: true" in refused([*files, "pytorch_model.bin"]).fix
    assert "handler.allow_pickle: true" in refused([*files, "pytorch_model-00001-of-00002.bin"]).fix
    # Nothing loads these by that name, with the setting neither.
    for options in ({}, {"pickles": True}):
        assert "save_pretrained" in refused([*files, "model.pt"], **options).fix
    assert "no index" in str(refused([*files, "pytorch_model-00001-of-00002.bin"], pickles=True))


def test_pickles_are_taken_only_if_they_may_be_and_only_where_there_is_nothing_better() -> None:
    pickled = ["config.json", "tokenizer.json", "pytorch_model.bin"]
    assert taken(pickled, pickles=True) == ["config.json", "pytorch_model.bin", "tokenizer.json"]
    assert taken([*pickled, "model.safetensors"], pickles=True) == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]


INDEX, PICKLE_INDEX = checkpoint.INDEX, selection.PICKLE_INDEX


@pytest.mark.parametrize(("index", "end"), [(INDEX, "safetensors"), (PICKLE_INDEX, "bin")])
def test_the_shards_of_an_index_are_taken_and_one_that_is_missing_is_named(index: str, end: str) -> None:
    first, second = f"model-1.{end}", f"model-2.{end}"
    files = {"config.json": "{}", "tokenizer.json": "", first: "", "other.safetensors": ""}
    files |= {index: json.dumps({"weight_map": {"a": first, "b": second, "c": first}})}
    assert "some/model lacks model-2." in refused(files, pickles=True).what
    found = taken({**files, second: ""}, pickles=True)
    assert found == sorted(["config.json", "tokenizer.json", index, first, second])


def test_a_single_file_comes_before_an_index_which_may_be_left_of_an_older_save() -> None:
    index = {"weight_map": {"a": "model-1.safetensors"}}
    for shards in (["model-1.safetensors"], []):
        files = {**dict.fromkeys([*WHOLE, *shards], ""), INDEX: index}
        assert taken(files) == taken(WHOLE)


def test_a_single_pickle_comes_before_an_index_of_pickles_and_after_one_of_safetensors() -> None:
    kept = ["config.json", "tokenizer.json"]
    old = {PICKLE_INDEX: {"weight_map": {"a": "pytorch_model-1.bin"}}}
    pickled = {**dict.fromkeys([*kept, "pytorch_model.bin"], ""), **old}
    assert taken(pickled, pickles=True) == ["config.json", "pytorch_model.bin", "tokenizer.json"]
    sharded = {**pickled, INDEX: {"weight_map": {"a": "model-1.safetensors"}}, "model-1.safetensors": ""}
    assert taken(sharded, pickles=True) == sorted([*kept, INDEX, "model-1.safetensors"])


def test_the_shards_of_an_index_are_named_once_each() -> None:
    index = json.dumps(
        {"weight_map": {"a": "model-2.safetensors", "b": "model-1.safetensors", "c": "model-1.safetensors"}}
    )
    assert selection.shards(index, "x") == ["model-1.safetensors", "model-2.safetensors"]


@pytest.mark.parametrize(
    "index",
    [
        "",
        "[]",
        "{}",
        "[" * 100_000,
        '{"weight_map": {}}',
        '{"weight_map": ["a"]}',
        '{"weight_map": {"a": 1}}',
        '{"weight_map": {"a": ["b.safetensors"]}}',
        '{"weight_map": {"a": "../x.safetensors"}}',
        '{"weight_map": {"a": "b/../../x.safetensors"}}',
        '{"weight_map": {"a": "/x.safetensors"}}',
        '{"weight_map": {"a": "pytorch_model.bin"}}',
        '{"weight_map": {"a": "\\u001b[2Jx.safetensors"}}',
    ],
)
def test_an_index_that_is_none_or_leads_out_of_the_folder_is_refused(index: str) -> None:
    with pytest.raises(InputError) as caught:
        selection.shards(index, "x")
    assert str(caught.value).replace("\n", "").isprintable()
    files = {name: "" for name in WHOLE if name != checkpoint.WEIGHTS}
    refused({**files, INDEX: index})


@pytest.mark.parametrize("name", ["../config.json", "a/../../b", "/etc/passwd", "..", ""])
def test_a_listing_with_a_name_that_leads_out_is_refused(name: str) -> None:
    assert "leads out" in refused([*WHOLE, name]).what


def test_a_name_that_is_only_odd_is_nobodys_business_and_steers_no_terminal() -> None:
    assert taken([*WHOLE, "a\\b", "new\nline", "..hidden", "résumé.txt"]) == taken(WHOLE)
    for name in ("\x1b[2J\n.pt", "\x1b[2J\n.onnx"):
        assert str(refused(["config.json", "tokenizer.json", name])).replace("\n", "").isprintable()
    assert str(refused(["checkpoint-\x1b[2J\n/config.json"])).replace("\n", "").isprintable()


def modules(*rows: tuple[str, str]) -> list[dict[str, Any]]:
    return [{"idx": i, "name": str(i), "path": path, "type": kind} for i, (path, kind) in enumerate(rows)]


TRANSFORMER, POOLING = "sentence_transformers.models.Transformer", ("1_Pooling", "sentence_transformers.models.Pooling")


@pytest.mark.parametrize(
    ("home", "kind"),
    [
        ("", TRANSFORMER),
        ("0_Transformer", TRANSFORMER),
        ("0_Transformer/", TRANSFORMER),
        ("0_BERT", "sentence_transformers.models.BERT"),
        ("", "sentence_transformers.base.modules.transformer.Transformer"),
        ("0_Transformer", "custom_st.Transformer"),
    ],
)
def test_of_sentence_transformers_modules_the_transformer_is_taken_and_no_other_ones_settings(
    home: str, kind: str
) -> None:
    inside = f"{home.rstrip('/')}/" if home else ""
    files = {inside + name: "" for name in WHOLE}
    files |= {f"1_Pooling/{name}": "" for name in ("config.json", "model.safetensors", "tokenizer.json")}
    files |= {"modules.json": json.dumps(modules((home, kind), POOLING)), "config_sentence_transformers.json": "{}"}
    found = select(files).files
    assert found == {name: inside + name for name in taken(WHOLE)}


def test_the_settings_of_sentence_transformers_first_versions_are_not_those_of_the_model() -> None:
    files = {f"0_Transformer/{name}": "" for name in WHOLE} | {"config.json": '{"__version__": "0.3.9"}'}
    found = select({**files, "modules.json": modules(("0_Transformer", TRANSFORMER), POOLING)}).files
    assert found["config.json"] == "0_Transformer/config.json"


@pytest.mark.parametrize("home", ["../x", "/x", "0_Transformer/../../x"])
def test_a_module_that_leads_out_is_refused(home: str) -> None:
    assert "leads out" in refused({"modules.json": modules((home, TRANSFORMER))}).what


@pytest.mark.parametrize(
    "told", ["", "{", "{}", "[" * 100_000, "[1]", json.dumps(modules(POOLING)), json.dumps([{"path": "a"}])]
)
def test_modules_without_a_transformer_are_refused(told: str) -> None:
    files = {"modules.json": told, **{f"0_Transformer/{name}": "" for name in WHOLE}}
    assert "does not list exactly one transformer" in refused(files).what


ADAPTER_CONFIG = {"base_model_name_or_path": "org/base", "revision": "v2", "task_type": "SEQ_CLS"}


def test_of_an_adapter_its_own_files_are_taken_and_its_base_model_is_told() -> None:
    files = {**dict.fromkeys([*ADAPTER, *LEFT_BY_A_TRAINER], ""), "adapter_config.json": ADAPTER_CONFIG}
    own = {f"adapter/{name}": name for name in ADAPTER[:2]}
    assert select(files) == Selection(files=own, base=Base(name="org/base", revision="v2"))
    # A config.json beside it, which some tools write, is no model's.
    assert select({**files, "config.json": "{}"}).files == own


def test_whole_weights_are_a_model_whatever_is_said_of_an_adapter_beside_them() -> None:
    files = {**dict.fromkeys([*WHOLE, *ADAPTER], ""), "adapter_config.json": ADAPTER_CONFIG}
    assert select(files).base is None
    assert sorted(select(files).files) == taken(WHOLE)


def test_an_adapters_tokenizer_takes_the_place_of_all_of_its_bases() -> None:
    side = ["tokenizer.json", "tokenizer_config.json"]
    files = {**dict.fromkeys([*ADAPTER, *side], ""), "adapter_config.json": ADAPTER_CONFIG}
    theirs = ["added_tokens.json", "generation_config.json", "vocab.txt", "special_tokens_map.json"]
    base = select(["config.json", "model.safetensors", *theirs])
    around = selection.with_base(select(files), base).files
    assert sorted(around) == ["config.json", "generation_config.json", "model.safetensors"]
    without = select({**dict.fromkeys(ADAPTER, ""), "adapter_config.json": ADAPTER_CONFIG})
    assert selection.with_base(without, base).files == base.files


def test_a_base_model_needs_no_tokenizer_where_the_adapter_brings_one() -> None:
    assert taken(["config.json", "model.safetensors"], tokenizer=False) == ["config.json", "model.safetensors"]
    assert "has no tokenizer" in refused(["config.json", "model.safetensors"]).what


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ("", "cannot be read as JSON"),
        ("[]", "is not a JSON object"),
        ("[" * 100_000, "cannot be read as JSON"),
        # peft would import the module that it names.
        ({**ADAPTER_CONFIG, "megatron_config": {"a": 1}, "megatron_core": "antigravity"}, "for Megatron's layers"),
    ],
)
def test_an_adapter_whose_settings_cannot_be_used_is_refused(told: Any, said: str) -> None:
    assert said in refused({**dict.fromkeys(ADAPTER, ""), "adapter_config.json": told}).what


@pytest.mark.parametrize("told", [{}, {"base_model_name_or_path": None}, {"base_model_name_or_path": ["a"]}])
def test_of_an_adapter_that_names_no_base_model_nothing_is_told_of_it(told: dict[str, Any]) -> None:
    files = {**dict.fromkeys(ADAPTER, ""), "adapter_config.json": told}
    assert select(files).base == Base(name="", revision=None)


def test_a_pickled_adapter_is_taken_only_if_it_may_be() -> None:
    files = {"adapter_config.json": ADAPTER_CONFIG, "adapter_model.bin": ""}
    assert "pickled (adapter_model.bin)" in str(refused(files))
    assert "adapter/adapter_model.bin" in select(files, pickles=True).files
    assert "It has no weight files" in str(refused({"adapter_config.json": ADAPTER_CONFIG}))


AUTO_MAP = {"AutoConfig": "configuration_own.OwnConfig", "AutoModel": "modeling_own.OwnModel", "AutoProcessor": None}
CODE = {
    "configuration_own.py": "from transformers import PretrainedConfig",
    "modeling_own.py": "import torch\nfrom .configuration_own import OwnConfig\ntry:\n    from .layers import Layer\n"
    "except ImportError:\n    pass\n# from .nothing import this\n",
    "layers.py": "from .modeling_own import OwnModel",
    "tokenization_own.py": "",
    "setup.py": "",
    "train.py": "from .layers import Layer",
    "tests/test_own.py": "",
}


def own(changes: dict[str, Any]) -> Selection:
    files = {**dict.fromkeys(WHOLE, "{}"), **CODE, "config.json": {"auto_map": AUTO_MAP}, **changes}

    def text(path: str) -> str:
        return files[path] if isinstance(files[path], str) else json.dumps(files[path])

    return with_code(selection.select(list(files), "some/model", text), list(files), "some/model", text)


def test_of_a_models_own_code_that_is_taken_which_runs() -> None:
    found = own({}).files
    assert sorted(found.keys() - set(WHOLE)) == ["configuration_own.py", "layers.py", "modeling_own.py"]
    told = {"auto_map": {"AutoTokenizer": ["tokenization_own.OwnTokenizer", None]}}
    assert "tokenization_own.py" in own({"tokenizer_config.json": told}).files


def test_code_is_found_where_the_model_lies() -> None:
    files = {f"0_Transformer/{name}": content for name, content in CODE.items()}
    files |= {f"0_Transformer/{name}": "{}" for name in WHOLE}
    files |= {"0_Transformer/config.json": json.dumps({"auto_map": AUTO_MAP})}
    files |= {"modules.json": json.dumps(modules(("0_Transformer", TRANSFORMER), POOLING))}
    model = selection.select(list(files), "some/model", files.__getitem__)
    found = with_code(model, list(files), "some/model", files.__getitem__).files
    assert found["modeling_own.py"] == "0_Transformer/modeling_own.py"
    assert found["layers.py"] == "0_Transformer/layers.py"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"config.json": {"auto_map": {"AutoModel": "org/x--modeling.Y"}}}, "another repository (org/x--modeling.Y)"),
        (
            {"tokenizer_config.json": {"auto_map": {"AutoTokenizer": [None, "a/b--c.D"]}}},
            "another repository (a/b--c.D)",
        ),
        ({"config.json": {"auto_map": {"AutoModel": "modeling_gone.X"}}}, "lacks modeling_gone.py"),
        ({"modeling_own.py": "from .gone import X"}, "lacks gone.py"),
        ({"config.json": {"auto_map": {"AutoModel": "../x.Y"}}}, "leads out"),
        ({"config.json": {"auto_map": {"AutoModel": "/tmp/x.Y"}}}, "leads out"),
        (
            {"config.json": {"auto_map": {"AutoModel": "seq_classification.Y"}}, "seq_classification.py": ""},
            "has code in seq_classification.py",
        ),
        ({"config.json": {"auto_map": {"AutoModel": "handlers/x.Y"}}, "handlers/x.py": ""}, "in handlers/x.py"),
        ({"layers.py": "from .tokenizers import X", "tokenizers.py": ""}, "in tokenizers.py"),
        ({"layers.py": "from .logging import X", "logging.py": ""}, "in logging.py"),
    ],
)
def test_code_that_cannot_be_pinned_found_or_packed_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as caught:
        own(changes)
    assert said in caught.value.what
    assert caught.value.fix
    assert len(str(caught.value).splitlines()) <= 3


@pytest.mark.parametrize(
    ("name", "said", "fix"),
    [
        ("model.fp16.safetensors", "variant", "Rename the file to model.safetensors"),
        ("model.non_ema.safetensors", "variant", "Rename the file to model.safetensors"),
        ("pytorch_model.fp16.bin", "variant", "Rename the file to pytorch_model.bin"),
        ("consolidated.safetensors", "not one that transformers loads", "rename it to model.safetensors"),
        ("weights/other.safetensors", "not one that transformers loads", "rename it to model.safetensors"),
    ],
)
def test_weights_under_another_name_are_named_with_the_way_out(name: str, said: str, fix: str) -> None:
    error = refused(["config.json", "tokenizer.json", name], pickles=True)
    assert name.rpartition("/")[2] in error.why
    assert said in error.why
    assert fix in error.fix
