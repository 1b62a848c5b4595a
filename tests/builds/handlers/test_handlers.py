"""What the four handlers do in both modes beside answering as transformers' pipelines (test_families.py)."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from mar_pipeline.answers.compare import differences
from mar_pipeline.tasks import TASKS
from tests.support import tiny
from tests.support.unpacked import Served, lay_out

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


@pytest.mark.parametrize("mode", ["pretrained", "torchscript"])
def test_answers_are_whole_words_where_windows_cut_them_too(served: Any, mode: str) -> None:
    ask = served("roberta", "question_answering", mode)
    words = [f"donaudampf{chr(97 + number % 26) * 3}schiff{chr(97 + number // 26)}" for number in range(60)]
    context = " ".join(words)
    asked = {"question": "Where?", "context": context, "top_k": 100, "max_answer_length": 60}
    (answers,) = ask(asked)
    assert len(answers) == 100
    assert [one["answer"] for one in answers if set(one["answer"].split(" ")) - set(words)] == []
    (answers,) = ask(asked | {"context": "donau" * 100})
    assert [(one["start"], one["end"]) for one in answers] == [(0, 500)]
    # Where no window holds a word, what is explained is in the one that has most of it.
    target = ask.handler.target({"question": "Where?", "context": "donau" * 100})
    assert target.name == "donau" * 100
    assert len(target.encoding) == 64


def test_an_answer_has_a_character(served: Any) -> None:
    ask = served("roberta", "question_answering", "pretrained")
    for context in (" a ", "a  b   "):
        (answers,) = ask({"question": "Who?", "context": context, "top_k": 50})
        assert answers
        assert all(one["answer"] for one in answers)
        (answers,) = ask({"question": "Who?", "context": context, "top_k": 50, "handle_impossible_answer": True})
        assert [(one["start"], one["end"]) for one in answers if not one["answer"]] == [(0, 0)]


@pytest.mark.parametrize("task", TASKS)
def test_a_server_that_takes_no_content_type_gets_the_same_answers(served: Any, task: str) -> None:
    ask = served("gpt2" if TASKS[task].generates else "bert", task, "pretrained")
    (sample, *_) = TASKS[task].samples
    (expected,) = ask(sample)
    context = SimpleNamespace(
        system_properties=ask.context.system_properties,
        model_yaml_config=ask.context.model_yaml_config,
        model_name="m",
        get_request_header=lambda *_: None,
        set_response_status=lambda **_: None,
    )
    assert ask.handler.handle([{"body": sample}], context) == [expected]


def test_no_answer_is_never_the_best_of_a_model_that_has_no_token_for_it(served: Any) -> None:
    ask = served("gpt2", "question_answering", "pretrained")
    body = {"question": "Who?", "context": "Tom works", "handle_impossible_answer": True}
    (best,), (every,) = ask(body), ask({**body, "top_k": 50})
    assert best["answer"]
    assert [one["score"] for one in every if not one["answer"]] == [0.0]


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
    from tests.unit.handlers.test_requests import GOOD

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


@pytest.mark.parametrize("kind", KINDS, ids="-".join)
@pytest.mark.parametrize("size", [1, 3, 8])
def test_kserves_envelopes_are_answered_in_batches_of_any_size(served: Any, kind: tuple[str, str], size: int) -> None:
    from tests.unit.handlers.test_requests import GOOD, tensor

    ask, one = served(*kind, "torchscript"), GOOD[kind[1]]
    fields = {"text", "text_pair", "question", "context", "prompt"} & one.keys()
    others = {name: value for name, value in one.items() if name not in fields}
    tensors = [tensor(name, [one[name]] * 2) for name in fields]
    bodies = [
        {"instances": [one, one, one]},
        {"inputs": tensors, "parameters": others},
        one,
        [one],
        {"instances": [one]},
    ]
    (alone,) = ask(one)
    replies = [reply for start in range(0, 10, size) for reply in ask(*(bodies * 2)[start : start + size])]
    assert len(replies) == 10
    for v1, v2, plain, many, other in (replies[:5], replies[5:]):
        assert (v2["model_name"], v2["outputs"][0]["shape"]) == ("tiny", [2])
        answers = [*v1["predictions"], *map(json.loads, v2["outputs"][0]["data"]), plain, *many, *other["predictions"]]
        assert [_rounded(answer) for answer in answers] == [_rounded(alone)] * 8


@pytest.mark.parametrize("mode", ["pretrained", "torchscript"])
def test_chat_messages_are_answered_as_the_pipeline_answers_them(mode: str, tmp_path: Path) -> None:
    from transformers import pipeline

    from tests.builds.handlers.test_chat import TALKS, TEMPLATES, checkpoint

    # The template writes the begin of the text itself, which is not to be there twice.
    folder = checkpoint(tmp_path / "checkpoint", "{{ bos_token }}" + TEMPLATES["marks"])
    ask = Served(lay_out(tmp_path / "archive", folder, "text_generation", mode, max_length=200), "text_generation")
    short = [[{"role": "user", "content": "the door"}], [{"role": "user", "content": "Grüße 😀"}]]
    parameters = {"max_new_tokens": 8}
    got = ask(*({"messages": talk, "parameters": parameters} for talk in short), {"prompt": "a"}, {"messages": [{}]})
    pipe = pipeline("text-generation", model=str(folder))
    for talk, answer in zip(short, got, strict=False):
        (theirs,) = pipe(talk, do_sample=False, **parameters)
        assert answer["generated_text"] == theirs["generated_text"][-1]["content"]
    assert ask.codes == {3: 400}
    (refused,) = ask({"messages": [{"role": "tool", "content": TALKS[0][0]["content"]}]})
    assert (refused["error"]["field"], ask.codes) == ("messages", {0: 400})


def test_attention_is_the_one_that_is_asked_for(served: Any, tmp_path: Path) -> None:
    usual = served("bert", "seq_classification", "pretrained")
    checkpoint = usual.folder.parent / "bert-seq_classification"
    folder = lay_out(tmp_path / "eager", checkpoint, "seq_classification", "pretrained", attn_implementation="eager")
    eager = Served(folder, "seq_classification")
    assert usual.handler.model.model.config._attn_implementation != "eager"
    assert eager.handler.model.model.config._attn_implementation == "eager"
    assert [_rounded(one) for one in eager(*TEXTS)] == [_rounded(one) for one in usual(*TEXTS)]


@pytest.mark.long
def test_a_compiled_model_answers_and_explains_as_it_does_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    task = "seq_classification"
    checkpoint = tiny.save(tmp_path / "checkpoint", "distilbert", task, n_layers=1)
    usual = Served(lay_out(tmp_path / "usual", checkpoint, task, "pretrained"), task)
    folder = lay_out(tmp_path / "compiled", checkpoint, task, "pretrained")
    config = yaml.safe_load((folder / "model-config.yaml").read_text())
    config["pt2"] = {"compile": {"enable": True}}  # by inductor, which is the default
    (folder / "model-config.yaml").write_text(yaml.safe_dump(config))
    compiled = Served(folder, task)
    texts = TEXTS[3:5]
    assert [_rounded(one) for one in compiled(*texts)] == [_rounded(one) for one in usual(*texts)]
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    usual.context.explain = compiled.context.explain = True
    assert _rounded(compiled({"text": TEXTS[0]})) == _rounded(usual({"text": TEXTS[0]}))


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
        torchscript.load(ask.folder, {}, torch.device("cuda"), 0, ask.handler.task)


def test_a_text_its_tokens_and_its_end_are_those_of_transformers(served: Any, tmp_path: Path) -> None:
    """What `verify` compares: with stop words, with a token that ends the text, and with neither."""
    ask = served("gpt2", "text_generation", "pretrained")
    checkpoint = ask.folder.parent / "gpt2-text_generation"

    def asked(**parameters: Any) -> dict[str, Any]:
        return {"prompt": "the room", "parameters": {"max_new_tokens": 8, "repetition_penalty": 1.4, **parameters}}

    def answers(ask: Served, checkpoint: Path, *requests: dict[str, Any]) -> tuple[list[Any], list[Any]]:
        return ask(*requests), _theirs(checkpoint, "text_generation", *requests)

    (plain,), theirs = answers(ask, checkpoint, asked())
    assert [plain] == theirs
    assert (plain["tokens"], plain["finish_reason"]) == (8, "length")
    text = plain["generated_text"]
    middle = text[len(text) // 2]
    stopped, theirs = answers(
        ask,
        checkpoint,
        asked(stop=middle),
        asked(stop=[text[-1], middle]),
        asked(stop=middle, return_full_text=True),
        asked(stop="never there", return_full_text=True),
    )
    assert stopped == theirs
    assert [one["finish_reason"] for one in stopped] == ["stop", "stop", "stop", "length"]
    assert 0 < stopped[0]["tokens"] < 8

    ended = tiny.save(tmp_path / "ended", "gpt2", "text_generation")
    every = list(range(json.loads((ended / "config.json").read_text())["vocab_size"]))
    (ended / "generation_config.json").write_text(json.dumps({"eos_token_id": every}))
    ask = Served(lay_out(tmp_path / "archive", ended, "text_generation", "pretrained"), "text_generation")
    (one,), theirs = answers(ask, ended, asked())
    assert [one] == theirs
    assert (one["tokens"], one["finish_reason"]) == (1, "stop")


def test_a_long_text_is_read_in_sixteen_bits_too(tmp_path: Path) -> None:
    checkpoint = tiny.save(tmp_path / "checkpoint", "electra", "token_classification")
    folder = lay_out(tmp_path / "archive", checkpoint, "token_classification", "pretrained", dtype="bfloat16")
    request = {"text": "Maria Lopez moved from Madrid to Berlin. " * 20}
    theirs = _theirs(checkpoint, "token_classification", request, dtype="bfloat16")
    assert differences("", theirs, Served(folder, "token_classification")(request), 2e-2) == []


def _theirs(checkpoint: Path, task: str, *requests: dict[str, Any], dtype: str = "auto") -> list[Any]:
    from mar_pipeline.workers import reference

    job = {
        "checkpoint": str(checkpoint),
        "auto_class": TASKS[task].auto_class,
        "allow_untrained_head": False,
        "attn_implementation": None,
        "dtype": dtype,
        "task": task,
        "settings": {"max_length": 64},
        "requests": requests,
    }
    return reference.answers(job, lambda *_: None)
