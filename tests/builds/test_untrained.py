"""A model answers with the weights of its checkpoint, or it is refused with what is wrong with them. Only a head may be
untrained, where that is allowed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mar_pipeline.errors import InputError
from mar_pipeline.workers import untrained
from mar_pipeline.workers.loading import model
from mar_pipeline.workers.untrained import Expected
from tests.support import tiny

BERT = Expected(
    "BertForSequenceClassification",
    tuple(
        ["classifier.weight", "bert.pooler.dense.weight", "bert.embeddings.word_embeddings.weight"]
        + [f"bert.encoder.layer.{number}.attention.self.query.weight" for number in range(4)]
    ),
    ("bert.",),
)
BODY = [name for name in BERT.names if BERT.in_body(name)]
PATTERN = re.compile(r'python -c "(.*)"', re.DOTALL)


def refused(expected: Expected, held: list[str], *, head_too: bool = True, others: dict[str, str] | None = None) -> str:
    """What is said of a checkpoint of these names."""
    files = {"model.safetensors": dict.fromkeys(held, (2, 2))}
    missing = [name for name in expected.names if name not in held]
    with pytest.raises(InputError) as caught:
        untrained.refuse(expected, files, missing, others or {}, head_too=head_too)
    assert 2 <= len(str(caught.value).splitlines()) <= 3
    assert caught.value.fix
    return str(caught.value)


def test_a_pooler_is_of_the_head_and_the_rest_of_the_body_is_not() -> None:
    assert list(BERT.names[2:]) == BODY


@pytest.mark.parametrize("head_too", [True, False], ids=["", "untrained head allowed"])
@pytest.mark.parametrize(
    ("rename", "shown", "by"),
    [
        (lambda name: f"module.{name}", "module.", "DataParallel"),
        (lambda name: f"_orig_mod.{name}", "_orig_mod.", "torch.compile"),
        (lambda name: f"_orig_mod.module.{name}", "module. and _orig_mod.", "DataParallel"),
        (lambda name: f"_fsdp_wrapped_module.{name}", "_fsdp_wrapped_module.", "FSDP"),
        (lambda name: re.sub(r"(layer\.\d)", r"\1._checkpoint_wrapped_module", name), "_checkpoint_wrapped", "activ"),
        (lambda name: f"model.{name}", "model.", "training framework"),
        (lambda name: f"my.own.net.{name}", "my.own.net.", "training framework"),
        (lambda name: f"module.model.{name}", "module. and model.", "DataParallel"),
        (lambda name: f"module.{name.removeprefix('bert.')}", "module.", "DataParallel"),
    ],
)
def test_a_prefix_in_front_of_all_names_is_named_with_the_way_out(
    rename: Callable[[str], str], shown: str, by: str, head_too: bool
) -> None:
    said = refused(BERT, [rename(name) for name in BERT.names], head_too=head_too)
    assert f"have {shown}" in said
    assert by in said
    assert "save_pretrained()" in said
    assert PATTERN.search(said)


@pytest.mark.parametrize("head_too", [True, False], ids=["", "untrained head allowed"])
@pytest.mark.parametrize(
    ("held", "said"),
    [
        (["transformer.h.0.attn.c_attn.weight", "transformer.wte.weight"], "do not fit a BertForSequence"),
        # Another family's, whose names end alike.
        ([name.replace("bert.", "roberta.") for name in BODY], "do not fit a BertForSequence"),
        (BODY[1:], "lacks weights of the model's body: bert.embeddings.word_embeddings.weight"),
        (BODY[:1], "lacks weights of the model's body: bert.encoder.layer.0.attention"),
    ],
)
def test_weights_that_are_not_the_bodys_are_refused_whatever_is_allowed(
    held: list[str], said: str, head_too: bool
) -> None:
    assert said in refused(BERT, held, head_too=head_too)


@pytest.mark.parametrize("head_too", [True, False], ids=["", "untrained head allowed"])
def test_a_body_of_another_shape_is_refused_whatever_is_allowed(head_too: bool) -> None:
    said = refused(BERT, list(BERT.names), head_too=head_too, others={BODY[0]: "[4, 2] and not [2, 2]"})
    assert f"{BODY[0]} is [4, 2] and not [2, 2]" in said
    assert "allow_untrained_head" not in said


def test_a_head_and_a_pooler_that_are_missing_or_of_another_shape_are_refused_unless_it_is_allowed() -> None:
    files = {"model.safetensors": dict.fromkeys(BODY, (2, 2))}
    assert "allow_untrained_head: true" in refused(BERT, BODY)
    other = {"classifier.weight": "[3, 2] and not [2, 2]"}
    assert "allow_untrained_head: true" in refused(BERT, list(BERT.names), others=other)
    untrained.refuse(BERT, files, BERT.names[:2], {}, head_too=False)
    untrained.refuse(BERT, files, BERT.names[1:2], other, head_too=False)


def test_where_no_body_can_be_told_all_of_a_model_counts_as_one() -> None:
    own = Expected("Own", BERT.names, ("",))
    assert all(own.in_body(name) for name in own.names)


def test_empty_weights_are_refused_and_those_that_the_model_has_so_itself_are_not() -> None:
    files = {"model.safetensors": {"bert.a": (0,), "bert.b": (2, 2), "types.weight": (0, 32)}}
    with pytest.raises(InputError) as caught:
        untrained.refuse_empty(files, lambda: {"bert.a": (4, 4), "bert.types.weight": (0, 32)})
    for word in ("1 of the checkpoint's 3 weights", "bert.a is [0]", "ZeRO-3", "zero_to_fp32.py"):
        assert word in str(caught.value)
    untrained.refuse_empty(files, lambda: {"bert.a": (0,), "bert.types.weight": (0, 32)})
    untrained.refuse_empty({"model.safetensors": {"bert.b": (2, 2)}}, lambda: pytest.fail("not needed"))


# From here on: with torch and transformers.


def job(folder: Path, **changes: Any) -> dict[str, Any]:
    plain = {"auto_class": "AutoModelForSequenceClassification", "allow_untrained_head": True}
    return {"checkpoint": str(folder), "num_labels": None, "labels": None, **plain, **changes}


def rewritten(folder: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Path:
    from safetensors.torch import load_file, save_file

    file = folder / "model.safetensors"
    save_file(change(load_file(file)), file, metadata={"format": "pt"})
    return folder


FAMILIES = ["bert", "roberta", "distilbert", "albert", "deberta-v2", "gpt2", "llama", "opt", "gemma3_text"]


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_of_every_family_the_head_may_be_untrained_and_no_weight_of_the_body(family: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    folder = tiny.save(tmp_path / family, family, "seq_classification")
    whole = load_file(folder / "model.safetensors")
    headless = model(job(folder, num_labels=5))
    assert headless.config.num_labels == 5
    heads = [name for name, weight in headless.state_dict().items() if 5 in weight.shape]
    assert heads
    rewritten(folder, lambda weights: {name: weight for name, weight in weights.items() if name not in heads})
    model(job(folder))
    layer = next(name for name in whole if "layer" in name or ".h." in name)
    rewritten(folder, lambda weights: {name: weight for name, weight in weights.items() if name != layer})
    with pytest.raises(InputError, match="lacks weights of the model's body"):
        model(job(folder))


@pytest.mark.slow
@pytest.mark.parametrize("front", ["module.", "_orig_mod.", "model."])
def test_the_command_that_an_error_gives_mends_the_checkpoint(front: str, tmp_path: Path) -> None:
    import torch

    folder = tiny.save(tmp_path / "bert", "bert", "seq_classification")
    before = model(job(folder)).state_dict()
    rewritten(folder, lambda weights: {front + name: weight for name, weight in weights.items()})
    with pytest.raises(InputError) as caught:
        model(job(folder))
    found = PATTERN.search(caught.value.fix)
    assert found
    subprocess.run([sys.executable, "-c", found[1]], cwd=folder, check=True)
    after = model(job(folder, allow_untrained_head=False)).state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.slow
@pytest.mark.parametrize("allowed", [True, False])
def test_empty_weights_are_refused_before_anything_else_is_said(allowed: bool, tmp_path: Path) -> None:
    folder = tiny.save(tmp_path / "bert", "bert", "seq_classification")
    rewritten(folder, lambda weights: {n: w if w.dim() < 2 else w.new_zeros(0) for n, w in weights.items()})
    with pytest.raises(InputError, match="ZeRO-3"):
        model(job(folder, allow_untrained_head=allowed))


@pytest.mark.slow
def test_a_weight_that_the_model_itself_has_empty_is_fine(tmp_path: Path) -> None:
    folder = tiny.save(tmp_path / "bert", "bert", "seq_classification", type_vocab_size=0)
    assert model(job(folder)).bert.embeddings.token_type_embeddings.weight.shape == (0, 32)


@pytest.mark.slow
@pytest.mark.parametrize("within", ["state_dict", "module"])
def test_a_pickle_that_keeps_the_weights_in_a_part_of_it_is_refused_and_the_part_named(
    within: str, tmp_path: Path
) -> None:
    import torch
    from safetensors.torch import load_file

    folder = tiny.save(tmp_path / "bert", "bert", "seq_classification")
    torch.save({within: load_file(folder / "model.safetensors"), "step": 5}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match=f"does not contain weights by name: it has '{within}'"):
        model(job(folder))


@pytest.mark.slow
def test_a_config_that_asks_for_more_layers_than_there_are_is_refused(tmp_path: Path) -> None:
    folder = tiny.save(tmp_path / "bert", "bert", "seq_classification")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    with pytest.raises(InputError, match=r"bert\.encoder\.layer\.2\."):
        model(job(folder))
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": 7}))
    with pytest.raises(InputError, match="weights do not match its config"):
        model(job(folder))
