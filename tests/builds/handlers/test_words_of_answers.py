"""Answers are whole words, unless the context's script has no spaces between words."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from handlers.text.spans import spaced
from mar_pipeline.answers.compare import differences
from mar_pipeline.errors import InputError
from mar_pipeline.workers import reference
from tests.support import tiny
from tests.support.unpacked import Served, lay_out

JAPANESE = "東京は日本の首都です。人口は千四百万人で、富士山が見えます。"
ENGLISH = "Nora works in a small shop in Lisbon and looked at the sky"
MIXED = "the shop in 東京都は日本 opened on weekdays"


@pytest.mark.parametrize(
    "word", ["東京は", "ひらがな", "カタカナ", "ﾊﾝｶｸ", "ภาษาไทย", "ພາສາລາວ", "ភាសាខ្មែរ", "မြန်မာ", "བོད་", "𠮷野"]
)
def test_scripts_without_spaces_have_no_words_for_a_tokenizer(word: str) -> None:
    assert not spaced(word)


@pytest.mark.parametrize("word", ["Lisbon", "한국어", "слово", "كلمة", "मानव", "cảm", "42%", "", "😀"])
def test_words_of_other_scripts_are_words(word: str) -> None:
    assert spaced(word)


def tokenizer() -> Any:
    """SentencePiece's form: only spaces separate words."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    specials = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    letters = sorted({*JAPANESE, *tiny._letters()})
    pieces = [*((name, 0.0) for name in specials), ("▁", -6.0), *((letter, -8.0) for letter in letters)]
    pieces += [(word, -5.0) for word in ("東京", "日本", "首都", "人口", "富士山", "▁in", "▁the", "sh", "Lis", "bon")]
    words = Tokenizer(models.Unigram(pieces, unk_id=3))
    words.pre_tokenizer, words.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    words.post_processor = tiny._around(words, "<s> $A </s>", "<s> $A </s> </s> $B </s>")
    names = {"bos": "<s>", "eos": "</s>", "cls": "<s>", "sep": "</s>", "unk": "<unk>", "pad": "<pad>", "mask": "<mask>"}
    named = tiny._named(words, **names)
    named.model_max_length = 126
    return named


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("answers")
    with pytest.MonkeyPatch.context() as patch:
        shape = {**tiny._BEHIND_PADDING, "max_position_embeddings": 130}
        patch.setitem(tiny._FAMILIES, "xlm-roberta", (tokenizer, shape))
        return tiny.save(root / "checkpoint", "xlm-roberta", "question_answering")


def spans(folder: Path, context: str, align: bool) -> dict[tuple[int, int], float]:
    """The score of each span, as transformers 4's question-answering pipeline computes them (`decode_spans`,
    `get_indices`)."""
    import torch
    from transformers import AutoModelForQuestionAnswering, AutoTokenizer

    words = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForQuestionAnswering.from_pretrained(folder).eval()
    encoded = words("who works", context, return_tensors="pt", return_offsets_mapping=True)
    places = encoded.pop("offset_mapping")[0].tolist()
    with torch.no_grad():
        out = model(**encoded)
    inside = [index for index, part in enumerate(encoded.sequence_ids(0)) if part == 1]
    starts, ends = (x[0, [0, *inside]].double().softmax(-1)[1:] for x in (out.start_logits, out.end_logits))
    found: dict[tuple[int, int], float] = {}
    for a, first in enumerate(inside):
        for b, last in list(enumerate(inside))[a : a + 30]:
            span = places[first][0], places[last][1]
            if align:
                numbers = encoded.token_to_word(0, first), encoded.token_to_word(0, last)
                span = encoded.word_to_chars(0, numbers[0], 1).start, encoded.word_to_chars(0, numbers[1], 1).end
            found[span] = max(found.get(span, 0.0), float(starts[a] * ends[b]))
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("context", "default"), [(JAPANESE, False), (ENGLISH, True)])
def test_spans_are_widened_to_words_where_there_are_words_and_where_it_is_asked_for(
    folder: Path, context: str, default: bool, tmp_path: Path
) -> None:
    task = "question_answering"
    ask = Served(lay_out(tmp_path / "archive", folder, task, "pretrained"), task)
    ask.handler.max_length = 126
    for given in (None, True, False):
        wanted = spans(folder, context, default if given is None else given)
        body = {"question": "who works", "context": context, "top_k": 5}
        (answers,) = ask(body if given is None else {**body, "align_to_words": given})
        best = sorted(wanted.items(), key=lambda one: -one[1])[:5]
        assert [(one["start"], one["end"]) for one in answers] == [span for span, _ in best]
        assert [one["score"] for one in answers] == pytest.approx([score for _, score in best], abs=1e-5)
        assert all(context[one["start"] : one["end"]] == one["answer"] for one in answers)


@pytest.mark.slow
def test_the_setting_holds_for_requests_that_do_not_say_and_the_original_answers_alike(
    folder: Path, tmp_path: Path
) -> None:
    task = "question_answering"
    requests: list[dict[str, Any]] = [
        {"question": "who works", "context": context, "top_k": 5, **more}
        for context in (JAPANESE, ENGLISH, MIXED)
        for more in ({}, {"align_to_words": True}, {"align_to_words": False})
    ]
    for setting in (None, True, False):
        settings = {} if setting is None else {"align_to_words": setting}
        ask = Served(lay_out(tmp_path / f"archive-{setting}", folder, task, "pretrained", **settings), task)
        job = {
            "checkpoint": str(folder),
            "auto_class": "AutoModelForQuestionAnswering",
            "allow_untrained_head": False,
            "task": task,
            "requests": requests,
            "settings": {"max_length": 64, "stride": 16, **settings},
        }
        expected = reference.answers(job, lambda *_: None)
        assert differences("", json.loads(json.dumps(expected)), ask(*requests), 1e-5) == []


@pytest.mark.slow
def test_a_tokenizer_that_pads_on_the_left_puts_the_context_first_and_is_refused(folder: Path, tmp_path: Path) -> None:
    left = shutil.copytree(folder, tmp_path / "left")
    settings = json.loads((left / "tokenizer_config.json").read_text())
    (left / "tokenizer_config.json").write_text(json.dumps({**settings, "padding_side": "left"}))
    job = {
        "checkpoint": str(left),
        "auto_class": "AutoModelForQuestionAnswering",
        "allow_untrained_head": False,
        "task": "question_answering",
        "requests": [{"question": "who works", "context": ENGLISH}],
        "settings": {"max_length": 64, "stride": 16},
    }
    with pytest.raises(InputError, match="pads on the left"):
        reference.answers(job, lambda *_: None)
