"""BetterTransformer: encoder layers over nested tensors, against the normal path."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from mar_pipeline.answers.compare import differences
from tests.support import tiny
from tests.support.unpacked import Served, lay_out

pytestmark = pytest.mark.slow

# Electra and the last two have no word in the code; all share BERT's way of building an encoder.
FAMILIES = ["bert", "roberta", "distilbert", "electra", "albert", "xlm-roberta", "camembert"]
TASKS = ["seq_classification", "token_classification", "question_answering"]
TEXTS = ["the old man opened the door", "a", "Grüße 😀 مرحبا", "the room was awful " * 40, "Maria moved", "!"]


def bodies(task: str) -> list[Any]:
    if task == "question_answering":
        return [{"question": "who moved to Lisbon?", "context": text, "top_k": 3} for text in TEXTS]
    many = {"top_k": 2} if task == "seq_classification" else {"aggregation_strategy": "none"}
    return [{"text": text, **many} for text in TEXTS]


def both(folder: Path, family: str, task: str, **settings: Any) -> tuple[Served, Served]:
    """The same checkpoint served by the normal path, and with BetterTransformer."""
    folder.mkdir(exist_ok=True)
    checkpoint = tiny.save(folder / "checkpoint", family, task)
    plain = Served(lay_out(folder / "plain", checkpoint, task, "pretrained", BetterTransformer=False, **settings), task)
    better = lay_out(folder / "better", checkpoint, task, "pretrained", BetterTransformer=True, **settings)
    return plain, Served(better, task)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("family", FAMILIES)
def test_answers_are_those_of_the_normal_path(family: str, task: str, tmp_path: Path) -> None:
    plain, better = both(tmp_path, family, task)
    assert better.handler.model.padding_is_free
    # One run for all lengths, where the normal path takes several.
    assert len(better.handler.batches([1, 60, 30])) == 1 < len(plain.handler.batches([1, 60, 30]))
    expected = plain(*bodies(task))
    assert differences("", expected, better(*bodies(task)), 1e-5) == []
    for body, wanted in zip(bodies(task), expected, strict=True):
        assert differences("", wanted, better(body)[0], 1e-5) == []


def test_no_token_of_padding_goes_through_a_layer(tmp_path: Path) -> None:
    import torch

    _, better = both(tmp_path, "bert", "seq_classification")
    seen = []
    for layer in better.handler.model.model.bert.encoder.layer:
        layer.intermediate.register_forward_pre_hook(lambda _, given: seen.append(tuple(given[0].shape)))
    mask = torch.tensor([[1] * 3 + [0] * 37, [1] * 40, [1] * 5 + [0] * 35])
    ids = torch.full_like(mask, 7)
    better.handler.model.run({"input_ids": ids, "attention_mask": mask, "token_type_ids": 0 * ids})
    # Of the last layer, the head reads one token of each text.
    assert seen == [(1, 48, 32), (1, 3, 32)]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_last_layer_is_cut_short_only_where_the_head_reads_one_token(family: str, tmp_path: Path) -> None:
    _, better = both(tmp_path, family, "seq_classification")
    last = better.handler.model.nested.last
    # Albert's layers are all one.
    assert (last is not None and last.known) == (family != "albert")
    _, better = both(tmp_path / "tags", family, "token_classification")
    last = better.handler.model.nested.last
    assert last is None or not last.known


@pytest.mark.parametrize(
    ("family", "settings", "why"),
    [
        ("mpnet", {}, "scaled_dot_product_attention"),
        ("deberta-v2", {}, "fails on nested tensors"),
        ("modernbert", {}, "no encoder"),
        ("gpt2", {}, "no encoder"),
        ("bert", {"attn_implementation": "eager"}, "scaled_dot_product_attention"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_model_without_such_a_form_is_told_and_served_as_ever(
    family: str, settings: dict[str, Any], why: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        plain, better = both(tmp_path, family, "seq_classification", **settings)
    (said,) = [record.getMessage() for record in caplog.records if "has no nested form" in record.getMessage()]
    assert why in said
    assert better.handler.model.notes == [f"BetterTransformer has no effect: {said}"]
    assert plain.handler.model.notes == []
    asked = bodies("seq_classification")
    assert differences("", plain(*asked), better(*asked), 1e-6) == []


def test_it_is_the_default_where_a_model_has_such_a_form(tmp_path: Path) -> None:
    for family, free in (("bert", True), ("mpnet", False)):
        checkpoint = tiny.save(tmp_path / family, family, "seq_classification")
        folder = lay_out(tmp_path / f"{family}-archive", checkpoint, "seq_classification", "pretrained")
        runtime = Served(folder, "seq_classification").handler.model
        assert (runtime.padding_is_free, runtime.notes) == (free, [])


def test_a_form_that_would_answer_otherwise_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from handlers.runtimes import nested

    plain, _ = both(tmp_path, "bert", "seq_classification")
    model, inputs = plain.handler.model.model, plain.handler.model.inputs
    # An encoder whose layers look at their neighbours' tokens: attention over the whole batch as if it were one text.
    monkeypatch.setattr(nested._Batch, "attend", lambda self, *q, **_: setattr(self, "attended", 1) or q[2])
    with pytest.raises(nested.NoForm, match="would differ"):
        nested.Nested(model, inputs)
    assert differences("", plain({"text": "a"}), plain({"text": "a"}), 0.0) == []


def test_explanations_are_those_of_the_normal_path(tmp_path: Path) -> None:
    pytest.importorskip("captum")
    plain, better = both(tmp_path, "roberta", "seq_classification")
    plain.context.explain = better.context.explain = True
    body = {"text": "the old man opened the door"}
    assert differences("", plain(body), better(body), 1e-4) == []


def test_a_model_that_cannot_be_tried_is_served_as_ever(tmp_path: Path) -> None:
    checkpoint = tiny.save(tmp_path / "checkpoint", "bert", "seq_classification", max_position_embeddings=8)
    folder = lay_out(tmp_path / "archive", checkpoint, "seq_classification", "pretrained", BetterTransformer=True)
    config = folder / "model-config.yaml"
    config.write_text(config.read_text().replace("max_length: 64", "max_length: 8"))
    served = Served(folder, "seq_classification")
    assert "fails on a trial batch" in served.handler.model.notes[0]
    assert served({"text": "the old man opened the door"})[0]["label"] in tiny.LABELS["seq_classification"]


def test_a_layer_that_norms_first_is_not_cut_short() -> None:
    import torch
    import transformers

    from handlers.runtimes import nested

    kinds = transformers.RobertaPreLayerNormForSequenceClassification, transformers.RobertaForSequenceClassification
    for kind, short in zip(kinds, (False, True), strict=True):
        config = kind.config_class(**tiny.SHAPE, vocab_size=60, pad_token_id=0)
        # In 16 bits the answers by a short way that is wrong would pass for rounding.
        model = kind(config).eval().to(torch.bfloat16)
        try:
            found = nested.Nested(model, ["input_ids", "attention_mask"])
        except nested.NoForm:
            assert not short
            assert transformers.__version__.startswith("4.")
        else:
            assert bool(found.last) is short
