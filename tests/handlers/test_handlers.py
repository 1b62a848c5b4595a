"""What the four handlers do in both modes beside answering as transformers' pipelines (test_families.py)."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from tests import tiny
from tests.handlers.archives import Served, lay_out

pytestmark = pytest.mark.slow

KINDS = [
    ("bert", "seq_classification"),
    ("electra", "token_classification"),
    ("roberta", "token_classification"),
    ("roberta", "question_answering"),
    ("gpt2", "text_generation"),
]
TEXTS = [
    "The soup was good.",
    "a",
    "!",
    "Grüße aus 北京 😀 e\u0301",
    "مرحبا بالعالم",
    "Maria Lopez moved from Madrid, to Berlin.\nIn March!",
    "the staff and the room and the soup were awful, bad, great and kind but not good",
]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Any:
    root, made = tmp_path_factory.mktemp("archives"), {}

    def get(family: str, task: str, mode: str) -> Served:
        if (family, task, mode) not in made:
            checkpoint = root / f"{family}-{task}"
            if not checkpoint.exists():
                tiny.save(checkpoint, family, task)
            folder = lay_out(root / f"{family}-{task}-{mode}", checkpoint, task, mode)
            made[family, task, mode] = Served(folder, task)
        return made[family, task, mode]

    return get


@pytest.mark.parametrize("family", ["electra", "roberta"])
def test_windows_over_a_long_text_give_every_token_once_at_its_place(served: Any, family: str) -> None:
    ask = served(family, "token_classification", "torchscript")
    text = " ".join(f"{word} x{number}" for number, word in enumerate(TEXTS * 12))
    whole = ask.handler.tokenizer.encode([text], None)[0]
    places = [p for p, special in zip(whole.offsets, whole.special_tokens_mask, strict=True) if not special]
    stride = 16
    windows = ask.handler.tokenizer.windows(text, 64, stride)
    assert len(windows) > 5
    import torch

    scores = [torch.rand(len(window), 5) for window in windows]
    pieces = ask.handler._pieces(text, list(zip(windows, scores, strict=True)), stride)
    assert [(piece.start, piece.end) for piece in pieces] == places
    (got,) = ask({"text": text})
    assert all(text[e["start"] : e["end"]] == e["text"] for e in got)


@pytest.mark.parametrize("mode", ["pretrained", "torchscript"])
def test_answers_are_spans_of_the_context_however_long_it_is(served: Any, mode: str) -> None:
    ask = served("roberta", "question_answering", mode)
    context = "Tom is a baker. He works in a shop in Lisbon. " * 30
    (many,) = ask({"question": "Where is the shop?", "context": context, "top_k": 20, "max_answer_length": 3})
    assert len(many) == 20
    assert all(context[one["start"] : one["end"]] == one["answer"] for one in many)
    assert all(0 <= one["start"] < one["end"] for one in many)
    assert [one["score"] for one in many] == sorted((one["score"] for one in many), reverse=True)
    assert max(one["start"] for one in many) > 64 * 4
    (refused,) = ask({"question": "where " * 100, "context": context})
    assert refused["error"]["field"] == "question"
    (maybe,) = ask({"question": "Who?", "context": "Tom.", "handle_impossible_answer": True, "top_k": 9})
    assert "" in [one["answer"] for one in maybe]


def test_there_are_as_many_answers_as_asked_for_though_words_have_many_tokens(served: Any) -> None:
    ask = served("roberta", "question_answering", "pretrained")
    (six,) = ask({"question": "Who?", "context": "Donaudampfschiff Rheinfall Elbe", "top_k": 6})
    assert len({(one["start"], one["end"]) for one in six}) == 6


@pytest.mark.parametrize("mode", ["pretrained", "torchscript"])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_decoder_classifies_a_text_in_a_batch_as_alone(served: Any, family: str, mode: str) -> None:
    ask = served(family, "seq_classification", mode)
    texts = [{"text": text} for text in ("a", "the old man opened the door", "once upon a time", "a cat")]
    alone = [ask(text)[0] for text in texts]
    for one, answer in zip(ask(*texts), alone, strict=True):
        assert one["label"] == answer["label"]
        assert one["score"] == pytest.approx(answer["score"], abs=1e-5)
    assert len({round(answer["score"], 3) for answer in alone}) > 1


@pytest.mark.parametrize("mode", ["pretrained", "torchscript"])
def test_a_neighbours_parameters_change_nothing(served: Any, mode: str) -> None:
    ask = served("gpt2", "text_generation", mode)
    requests = [
        {"prompt": "Once upon a time", "parameters": {"max_new_tokens": 9}},
        {"prompt": "The", "parameters": {"max_new_tokens": 20, "do_sample": True, "seed": 5, "temperature": 2.0}},
        {"prompt": "the old man", "parameters": {"max_new_tokens": 3, "return_full_text": True}},
        {
            "prompt": "nothing",
            "parameters": {"max_new_tokens": 15, "do_sample": True, "seed": 6, "top_k": 5, "top_p": 0.9},
        },
        {"prompt": "She", "parameters": {"max_new_tokens": 15, "repetition_penalty": 1.5}},
    ]
    assert ask(*requests) == [ask(request)[0] for request in requests]
    assert ask(requests[2])[0]["generated_text"].startswith("the old man")


@pytest.mark.parametrize("kind", KINDS, ids="-".join)
@pytest.mark.parametrize("mode", ["pretrained", "torchscript"])
def test_bad_requests_get_their_own_400_and_their_neighbours_right_answers(
    served: Any, kind: tuple[str, str], mode: str
) -> None:
    from tests.handlers.test_requests import GOOD

    ask, good = served(*kind, mode), GOOD[kind[1]]
    (alone,) = ask(good)
    batch = [b"", good, b'{"broken', b"\xff", {"unknown": 1}, good, [good, good], 5, [], {"instances": [good]}]
    replies = ask(*batch)
    assert len(replies) == len(batch)
    assert ask.codes == {0: 400, 2: 400, 3: 400, 4: 400, 7: 400, 8: 400}
    assert all(replies[index]["error"]["message"] for index in ask.codes)
    near = [replies[1], replies[5], *replies[6], *replies[9]["predictions"]]
    for reply in near:
        assert _rounded(reply) == _rounded(alone)


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return round(value, 4) if isinstance(value, float) else value


def test_an_input_that_breaks_the_model_gets_its_500_alone_and_no_text_is_logged(
    served: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ask = served("bert", "seq_classification", "pretrained")
    encode = ask.handler.tokenizer.encode

    def breaking(texts: Any, length: Any) -> Any:
        if "secret poison" in texts:
            raise RuntimeError("cannot take: secret poison")
        return encode(texts, length)

    monkeypatch.setattr(ask.handler.tokenizer, "encode", breaking)
    with caplog.at_level(logging.DEBUG):
        good, bad, other = ask({"text": "good"}, {"text": "secret poison"}, {"text": "awful"})
    assert ask.codes == {1: 500}
    assert "error" in bad
    assert good["label"] in ("negative", "positive")
    assert other["label"] in ("negative", "positive")
    assert "RuntimeError" in caplog.text
    assert "poison" not in caplog.text


def test_a_trace_for_another_device_is_refused_in_one_sentence(served: Any) -> None:
    import torch

    from handlers.runtimes import torchscript

    ask = served("bert", "seq_classification", "torchscript")
    with pytest.raises(ValueError, match="traced for cpu and cannot run on cuda"):
        torchscript.load(ask.folder, {}, torch.device("cuda"), 0)
