"""The starters for question answering and text generation: complete, small, and as good as their cards say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import pipeline

STARTERS = Path(pipeline.__file__).parent / "starters"
HELD_OUT = STARTERS / "training" / "heldout"

pytestmark = pytest.mark.slow


def load(task: str, kind: str) -> tuple[Any, Any]:
    """The model and the tokenizer of a starter; fails where a weight is missing or left over."""
    import torch
    import transformers

    torch.set_num_threads(1)
    model, report = getattr(transformers, kind).from_pretrained(STARTERS / task, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    return model.eval(), transformers.AutoTokenizer.from_pretrained(STARTERS / task)


@pytest.fixture(scope="module")
def answers() -> tuple[Any, Any]:
    return load("question_answering", "AutoModelForQuestionAnswering")


@pytest.fixture(scope="module")
def text() -> tuple[Any, Any]:
    return load("text_generation", "AutoModelForCausalLM")


@pytest.mark.parametrize("task", ["question_answering", "text_generation"])
def test_a_starter_is_complete_and_under_eight_megabytes(task: str) -> None:
    names = {path.name for path in (STARTERS / task).iterdir()}
    needed = {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.json",
        "merges.txt",
        "README.md",
    }
    assert needed <= names
    assert sum(path.stat().st_size for path in (STARTERS / task).iterdir()) < 8_000_000


@pytest.mark.parametrize("task", ["question_answering", "text_generation"])
def test_a_card_names_licence_language_and_the_command_that_rebuilds_it(task: str) -> None:
    card = (STARTERS / task / "README.md").read_text(encoding="utf-8")
    head = card.split("---")[1]
    assert "license: apache-2.0" in head
    assert "language: en" in head
    assert f"pipeline_tag: {task.replace('_', '-')}" in head
    assert f"python -m pipeline.starters.training {task}" in card


def test_the_held_out_questions_score_what_the_card_says(answers: tuple[Any, Any]) -> None:
    from pipeline.starters.training import answer_score

    card = (STARTERS / "question_answering" / "README.md").read_text(encoding="utf-8")
    row = re.search(r"\| held out \| (\d+) \| ([\d.]+) % \| ([\d.]+) % \|", card)
    assert row
    score = answer_score.score(*answers, HELD_OUT / "question_answering.json")
    assert score.count == int(row[1]) >= 60
    assert score.exact == pytest.approx(float(row[2]), abs=2)
    assert score.f1 == pytest.approx(float(row[3]), abs=2)


@pytest.mark.parametrize(
    ("question", "context", "wanted"),
    [
        (
            "Where does Tom work?",
            "Tom is a baker. He works in a small shop in Lisbon and gets up at four.",
            "a small shop in Lisbon",
        ),
        ("Who won?", "Nora won.", "Nora"),
        ("What colour is the car?", "The car is blue.", "blue"),
    ],
)
def test_plain_questions_get_their_answers(answers: tuple[Any, Any], question: str, context: str, wanted: str) -> None:
    from pipeline.starters.training import answer_score

    assert answer_score.overlap(answer_score.answer(*answers, question, context), wanted) > 0.6


def test_a_question_and_its_context_are_written_the_way_roberta_reads_them(answers: tuple[Any, Any]) -> None:
    _, tokenizer = answers
    tokens = tokenizer("Who won?", "Nora won.").tokens()
    assert tokens[0] == "<s>"
    assert tokens.count("</s>") == 3
    assert type(tokenizer).__name__.startswith("RobertaTokenizer")
    assert tokenizer.is_fast


def test_text_scores_what_the_card_says_and_does_not_loop(text: tuple[Any, Any]) -> None:
    from pipeline.starters.training import text_score

    card = (STARTERS / "text_generation" / "README.md").read_text(encoding="utf-8")
    said = [float(number) for number in re.findall(r"\| ([\d.]+)(?: %)? \|$", card, re.MULTILINE)]
    score = text_score.score(*text, HELD_OUT / "text_generation.json")
    assert [score.perplexity, score.per_word, score.repeated] == pytest.approx(said, rel=0.02, abs=0.5)
    assert score.repeated < 20


def test_the_same_prompt_goes_on_the_same_way_and_in_words(text: tuple[Any, Any]) -> None:
    from pipeline.starters.training import text_score

    model, tokenizer = text
    ids = text_score.go_on(model, tokenizer, "Once upon a time", 24)
    assert ids == text_score.go_on(model, tokenizer, "Once upon a time", 24)
    assert re.match(r"[,a-z ]", tokenizer.decode(ids))
    assert len(tokenizer.decode(ids).split()) > 12
