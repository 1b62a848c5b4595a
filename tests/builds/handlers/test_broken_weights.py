"""Weights that are NaN or infinite for one word break the texts with that word, and no others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from mar_pipeline.answers.compare import differences
from tests.support import tiny
from tests.support.unpacked import Served, lay_out

pytestmark = pytest.mark.slow

FIELDS = {"question_answering": "context", "text_generation": "prompt"}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(
    ("task", "kind"),
    [
        ("seq_classification", "single_label_classification"),
        ("seq_classification", "multi_label_classification"),
        ("seq_classification", "regression"),
        ("token_classification", None),
        ("question_answering", None),
        ("text_generation", None),
    ],
)
def test_a_text_whose_scores_are_no_numbers_gets_500_in_valid_json_and_its_neighbours_their_answers(
    task: str, kind: str | None, value: float, tmp_path: Path
) -> None:
    writes = task == "text_generation"
    # Without tied weights, only texts with the word are broken.
    changes = {"tie_word_embeddings": False} if writes else {"problem_type": kind} if kind else {}
    folder = tiny.save(tmp_path / "checkpoint", "gpt2" if writes else "bert", task, **changes)
    word = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(" baker", add_special_tokens=False).ids[0]
    weights = load_file(folder / "model.safetensors")
    (name,) = [name for name in weights if name.endswith(("word_embeddings.weight", "wte.weight"))]
    weights[name][word] = value
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    ask = Served(lay_out(tmp_path / "archive", folder, task, "pretrained"), task)
    more = {"question": "who"} if task == "question_answering" else {}
    bodies = [{**more, FIELDS.get(task, "text"): text} for text in ("the room was good", "a baker", "the shop")]
    replies = ask(*bodies)
    assert ask.codes == {1: 500}
    assert "NaN or infinite" in replies[1]["error"]["message"]
    json.dumps(replies, allow_nan=False)
    assert differences("", [ask(bodies[0])[0], ask(bodies[2])[0]], [replies[0], replies[2]], 1e-5) == []
