"""Every family in both save modes, against transformers' own pipelines.

Question answering, for which transformers 5 has none, is in test_older_pipeline.py.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support import tiny
from tests.support.unpacked import Served, lay_out

pytestmark = pytest.mark.slow

MODES = ("pretrained", "torchscript")
# Neither Electra, ALBERT nor OPT is named anywhere in the code.
ENCODERS = ("bert", "roberta", "distilbert", "electra", "albert")
DECODERS = ("gpt2", "opt")
TEXTS = [
    "Maria Lopez moved from Madrid, to Berlin.\nIn March!",
    "Grüße aus 北京 — e\u0301, ﬁ, Å",
    "the 👩‍👩‍👧 was 🇵🇹 good",
    "\u202bשלום\u202c, \u200fمرحبا!",
    "!",
    ".",
    " a ",
    "the staff\tand the room \u00a0 and the soup were awful, bad, great and kind but not good",
]
LONG = "the room was awful 😀 Grüße " * 40

Ask = Callable[[str, str, str], Served]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The checkpoint of a family and a task, made once; `changes` go into its configuration."""
    root = tmp_path_factory.mktemp("checkpoints")

    def get(family: str, task: str, **changes: Any) -> Path:
        folder = root / "-".join([family, task, *(f"{name}={value}" for name, value in changes.items())])
        # DistilBERT takes no segments, and its tokenizers give none.
        return folder if folder.exists() else tiny.save(folder, family, task, family != "distilbert", **changes)

    return get


@pytest.fixture(scope="module")
def ask(checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Ask:
    """The handler of a family, a task and a save mode, loaded once."""
    root, made = tmp_path_factory.mktemp("archives"), dict[tuple[str, str, str], Served]()

    def get(family: str, task: str, mode: str) -> Served:
        if (family, task, mode) not in made:
            folder = lay_out(root / f"{family}-{task}-{mode}", checkpoint(family, task), task, mode)
            made[family, task, mode] = Served(folder, task)
        return made[family, task, mode]

    return get


def agree(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> None:
    """Labels and scores of a text."""
    assert [one["label"] for one in ours] == [one["label"] for one in theirs]
    assert [one["score"] for one in ours] == pytest.approx([one["score"] for one in theirs], abs=1e-5)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("family", ENCODERS)
def test_labels_are_those_of_the_text_classification_pipeline(
    ask: Ask, checkpoint: Callable[..., Path], family: str, mode: str
) -> None:
    from transformers import pipeline

    pipe = pipeline("text-classification", model=str(checkpoint(family, "seq_classification")), top_k=None)
    asked = [
        *({"text": text} for text in [*TEXTS, LONG]),
        {"text": TEXTS[0], "text_pair": TEXTS[2]},
        {"text": LONG, "text_pair": LONG[5:]},
        {"text": "!", "text_pair": LONG},
    ]
    got = ask(family, "seq_classification", mode)(*({**one, "top_k": 9} for one in asked))
    for one, ours in zip(asked, got, strict=True):
        # A list of one text has a list of one answer; with top_k=None the pipeline gives every label.
        theirs = pipe(one, truncation=True, max_length=64)
        agree(ours, theirs[0] if isinstance(theirs[0], list) else theirs)
    assert len({round(ours[0]["score"], 4) for ours in got}) > len(got) / 2


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("kind", "labels"),
    [
        ("single_label_classification", 3),
        ("multi_label_classification", 3),
        ("regression", 1),
        ("regression", 2),
        (None, 1),
        (None, 2),
    ],
)
def test_scores_are_what_the_problem_type_makes_of_them(
    checkpoint: Callable[..., Path], kind: str | None, labels: int, mode: str, tmp_path: Path
) -> None:
    from transformers import pipeline

    task, names = "seq_classification", {number: f"label {number}" for number in range(labels)}
    folder = checkpoint("electra", task, num_labels=labels, id2label=names, problem_type=kind)
    served = Served(lay_out(tmp_path / "archive", folder, task, mode, names=names), task)
    pipe = pipeline("text-classification", model=str(folder), top_k=None)
    for text, ours in zip(TEXTS, served(*({"text": text, "top_k": 9} for text in TEXTS)), strict=True):
        theirs = pipe(text)
        agree(ours, theirs[0] if isinstance(theirs[0], list) else theirs)
    (best,) = served(TEXTS[0])
    assert best == served({"text": TEXTS[0], "top_k": 9})[0][0]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("family", ENCODERS)
@pytest.mark.filterwarnings("ignore:Tokenizer does not support real words")
def test_entities_are_those_of_the_token_classification_pipeline_in_every_aggregation(
    ask: Ask, checkpoint: Callable[..., Path], family: str, mode: str
) -> None:
    from transformers import pipeline

    # A text longer than the model is left out: of what its windows say of one place, the pipeline's `stride` keeps the
    # longest entity, and the handlers each token's scores out of the window that sees most around it.
    pipe = pipeline("token-classification", model=str(checkpoint(family, "token_classification")))
    served = ask(family, "token_classification", mode)
    count = 0
    for strategy in ("none", "simple", "first", "average", "max"):
        got = served(*({"text": text, "aggregation_strategy": strategy} for text in TEXTS))
        for text, ours in zip(TEXTS, got, strict=True):
            theirs = pipe(text, aggregation_strategy=strategy)
            assert [(one["start"], one["end"]) for one in ours] == [(one["start"], one["end"]) for one in theirs]
            assert [one["label"] for one in ours] == [one.get("entity_group") or one["entity"] for one in theirs]
            assert [one["score"] for one in ours] == pytest.approx([float(one["score"]) for one in theirs], abs=1e-5)
            assert all(text[one["start"] : one["end"]] == one["text"] for one in ours)
            count += len(ours)
    assert count > 50


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("family", DECODERS)
def test_greedy_texts_are_those_of_the_text_generation_pipeline_alone_and_in_a_batch(
    ask: Ask, checkpoint: Callable[..., Path], family: str, mode: str
) -> None:
    from transformers import pipeline

    pipe = pipeline("text-generation", model=str(checkpoint(family, "text_generation")))
    served = ask(family, "text_generation", mode)
    for full, penalty in ((False, 1.0), (True, 1.0), (False, 1.4)):
        given = {"max_new_tokens": 12, "return_full_text": full, "repetition_penalty": penalty}
        bodies = [{"prompt": text, "parameters": given} for text in TEXTS]
        together = served(*bodies)
        assert together == [served(body)[0] for body in bodies]
        for text, ours in zip(TEXTS, together, strict=True):
            (theirs,) = pipe(text, do_sample=False, **given)
            assert ours["generated_text"] == theirs["generated_text"]
    assert len({answer["generated_text"] for answer in together}) > 3
