"""A tokenizer with more tokens than its model: the build says so, and a text with one of them gets a 400 that names
it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mar_pipeline.answers.compare import differences
from tests.support import tiny
from tests.support.mar import MODES, Mar
from tests.support.unpacked import Served, lay_out

pytestmark = pytest.mark.slow

ASKED: dict[str, tuple[str, list[dict[str, Any]], str]] = {
    # task: family, a request and one with a token that the model does not know, the field of that token
    "seq_classification": ("bert", [{"text": "good room"}, {"text": "good", "text_pair": "see [URL]"}], "text_pair"),
    "token_classification": ("bert", [{"text": "Maria Lopez"}, {"text": "Maria [URL]"}], "text"),
    "question_answering": (
        "bert",
        [{"question": "who won?", "context": "Nora won."}, {"question": "who?", "context": "[URL] won."}],
        "context",
    ),
    "text_generation": ("gpt2", [{"prompt": "once upon"}, {"prompt": "once [URL]"}], "prompt"),
}


def with_tokens(folder: Path, family: str, task: str) -> Path:
    """A checkpoint whose tokenizer has tokens, its padding among them, that the model was not resized for."""
    from transformers import AutoTokenizer

    tiny.save(folder, family, task)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["[URL]"])
    tokenizer.add_special_tokens({"pad_token": "<added pad>"})
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("task", ASKED)
def test_a_token_that_the_model_does_not_know_is_named_and_neighbours_are_answered(
    task: str, mode: str, tmp_path: Path
) -> None:
    family, (known, unknown), field = ASKED[task]
    plain = Served(lay_out(tmp_path / "plain", tiny.save(tmp_path / "as it was", family, task), task, mode), task)
    ask = Served(lay_out(tmp_path / "archive", with_tokens(tmp_path / "one", family, task), task, mode), task)
    longer = {name: f"{text} and the staff was kind" for name, text in known.items()}
    replies = ask(known, unknown, longer, [known, unknown])
    assert ask.codes == {1: 400, 3: 400}
    message = "the model has no embedding for the token '[URL]', which its tokenizer has"
    assert replies[1] == {"error": {"message": message, "field": field}}
    assert replies[3] == {"error": {"message": message, "field": f"[1].{field}"}}
    # In a batch with padding, which has no embedding either.
    assert differences("", plain(known, longer), [replies[0], replies[2]], 1e-5) == []


def test_a_text_to_explain_is_refused_too(tmp_path: Path) -> None:
    task = "text_generation"
    ask = Served(lay_out(tmp_path / "archive", with_tokens(tmp_path / "one", "gpt2", task), task, "pretrained"), task)
    ask.context.explain = True
    replies = ask({"prompt": "once [URL]"}, {"prompt": "once upon", "target": "[URL]"})
    assert ask.codes == {0: 400, 1: 400}
    assert [reply["error"]["field"] for reply in replies] == ["prompt", "target"]


@pytest.mark.parametrize("mode", MODES)
def test_a_build_says_which_tokens_the_model_does_not_know(mode: str, fresh_mar: Mar) -> None:
    folder = with_tokens(fresh_mar.folder / "own", "bert", "seq_classification")
    done = fresh_mar("build", "--model", folder, "--save-mode", mode, "--out", fresh_mar.out)
    assert done.returncode == 0, done.stderr
    note = "its tokenizer has 2 tokens that the model has no embedding for ('<added pad>', '[URL]')"
    assert f"own: {note}" in done.stderr
    (told,) = json.loads((fresh_mar.out / "reports" / "own.json").read_text())["notes"]
    assert told.startswith(note)
