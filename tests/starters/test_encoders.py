"""The starters for sentiment and entities: whole, scored as their cards say, sensible on plain sentences."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from pipeline.starters.training import seq_classification, token_classification
from pipeline.starters.training.loop import heldout

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent.parent / "pipeline" / "starters"


def loaded(task: str, auto: str) -> tuple[Any, Any]:
    import transformers

    model, info = getattr(transformers, auto).from_pretrained(ROOT / task, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    return model.eval(), transformers.AutoTokenizer.from_pretrained(ROOT / task)


@pytest.fixture(scope="module")
def sentiment() -> tuple[Any, Any]:
    return loaded("seq_classification", "AutoModelForSequenceClassification")


@pytest.fixture(scope="module")
def entities() -> tuple[Any, Any]:
    return loaded("token_classification", "AutoModelForTokenClassification")


def test_the_sentiment_card_tells_the_score_on_the_heldout_sentences(sentiment: tuple[Any, Any]) -> None:
    right, total = seq_classification.score(*sentiment)
    assert (
        f"**Accuracy {right / total:.1%}** on {total} held-out" in (ROOT / "seq_classification/README.md").read_text()
    )
    assert right / total >= 0.85


def test_the_entities_card_tells_the_score_on_the_heldout_sentences(entities: tuple[Any, Any]) -> None:
    _, _, f1, total = token_classification.score(*entities)
    card = (ROOT / "token_classification/README.md").read_text()
    assert f"**F1 {f1:.1%}**" in card
    assert f"on {total} entities" in card
    assert f1 >= 0.75


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("The food was delicious and the staff were friendly.", "positive"),
        ("This is the worst phone I have ever had.", "negative"),
        ("The service was not good.", "negative"),
        ("I love this place!", "positive"),
    ],
)
def test_plain_sentences_get_the_label_that_anybody_would_give(
    sentiment: tuple[Any, Any], text: str, label: str
) -> None:
    model, tokenizer = sentiment
    assert model.config.id2label[int(model(**tokenizer(text, return_tensors="pt")).logits.argmax())] == label


def test_names_are_found_in_a_plain_sentence(entities: tuple[Any, Any]) -> None:
    found = token_classification.found_in(*entities, "Maria Lopez moved from Madrid to Berlin in March.")
    assert found == {("Maria Lopez", "PER"), ("Madrid", "LOC"), ("Berlin", "LOC")}


def test_no_heldout_sentence_is_in_the_training_text() -> None:
    sentences, names = (kind(random.Random(1)) for kind in (seq_classification.Grammar, token_classification.Grammar))
    made = {grammar.example()[0].lower() for grammar in (sentences, names) for _ in range(20_000)}
    written = {row[0].lower() for task in ("seq_classification", "token_classification") for row in heldout(task)}
    # One word says it all: any text of sentiment has it.
    assert not (made & {text for text in written if len(text.split()) > 2})


@pytest.mark.parametrize("task", ["seq_classification", "token_classification"])
def test_a_starter_is_small(task: str) -> None:
    assert sum(file.stat().st_size for file in (ROOT / task).iterdir()) < 8_000_000
