"""What one request of a batch does to the others: nothing."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from mar_pipeline.answers.compare import differences
from tests.support import tiny
from tests.support.unpacked import Served, lay_out

pytestmark = pytest.mark.slow


def made(folder: Path, family: str, task: str, mode: str = "pretrained", **settings: Any) -> Served:
    checkpoint = tiny.save(folder / "checkpoint", family, task)
    return Served(lay_out(folder / "archive", checkpoint, task, mode, **settings), task)


@pytest.mark.parametrize("mode", ["pretrained", "torchscript"])
def test_a_long_prompt_that_has_ended_does_not_outgrow_the_model(
    mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = made(tmp_path, "gpt2", "text_generation", mode)
    bodies = [
        {"prompt": " the" * 20, "parameters": {"max_new_tokens": 2}},
        {"prompt": "a", "parameters": {"max_new_tokens": 60}},
        {"prompt": "the room", "parameters": {"max_new_tokens": 5}},
    ]
    alone = [ask(body)[0] for body in bodies]
    generate = type(ask.handler.model).generate
    failed = []

    def watched(*given: Any) -> None:
        try:
            generate(*given)
        except Exception as error:
            failed.append(error)
            raise

    monkeypatch.setattr(type(ask.handler.model), "generate", watched)
    assert ask(*bodies) == alone
    assert failed == []


def test_who_has_had_a_part_of_an_answer_fails_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from handlers.inference.generation import Row
    from handlers.protocol.streaming import Stream

    ask = made(tmp_path, "gpt2", "text_generation")
    good, bad = {"prompt": "the room"}, {"prompt": "a", "parameters": {"seed": 666}}
    expected = ask(good)[0]
    choose = Row.choose

    def choosing(row: Row, logits: Any) -> int:
        if row.parameters.seed == 666 and len(row.new) == 3:
            raise RuntimeError
        return choose(row, logits)

    monkeypatch.setattr(Row, "choose", choosing)
    monkeypatch.setattr(Stream, "sent", property(lambda _: True, lambda *_: None), raising=False)
    replies = ask({**good, "stream": True}, bad, good)
    assert ask.codes == {0: 500, 1: 500}
    assert replies[2] == expected


def test_a_request_that_breaks_the_parser_gets_its_own_500(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from handlers import base

    ask = made(tmp_path, "bert", "seq_classification")
    expected, parse = ask({"text": "good"})[0], base.parse

    def parsing(row: dict[str, Any], *others: Any, **words: Any) -> Any:
        return 1 / 0 if row["body"] == {"text": "bad"} else parse(row, *others, **words)

    monkeypatch.setattr(base, "parse", parsing)
    assert ask({"text": "bad"}, {"text": "good"})[1] == expected
    assert ask.codes == {0: 500}


def test_an_explanation_that_would_take_minutes_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("captum")
    ask = made(tmp_path, "bert", "seq_classification")
    ask.context.explain = True
    body = {"text": "good " * 60, "steps": 500}
    replies = ask({"instances": [body] * 5}, {**body, "steps": 2})
    assert ask.codes == {0: 413}
    assert replies[0]["error"]["field"] == "instances[2].steps"
    assert "importance" in replies[1]["tokens"][0]


def test_a_text_without_a_token_is_refused(tmp_path: Path) -> None:
    checkpoint = tiny.save(tmp_path / "checkpoint", "bert", "seq_classification")
    file = checkpoint / "tokenizer.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "post_processor": None}))
    task = "seq_classification"
    ask = Served(lay_out(tmp_path / "archive", checkpoint, task, "pretrained"), task)
    expected = ask({"text": "good"})[0]
    assert ask({"text": "\u200b"}, {"text": "good"})[1] == expected
    assert ask.codes == {0: 400}


def test_threads_may_run_a_model_without_padding_at_once(tmp_path: Path) -> None:
    ask = made(tmp_path, "bert", "seq_classification", top_k=2)
    inputs = [[{"text": "good " * (one % 7 + 1) + "bad " * other} for other in range(5)] for one in range(40)]
    expected = [ask.handler.answer(batch) for batch in inputs]
    with ThreadPoolExecutor(4) as pool:
        for wanted, got in zip(expected, pool.map(ask.handler.answer, inputs), strict=True):
            assert differences("", wanted, got, 1e-6) == []


@pytest.mark.parametrize("mode", ["pretrained", "torchscript"])
def test_a_decoder_that_classifies_reads_its_last_token_though_nothing_names_the_padding(
    mode: str, tmp_path: Path
) -> None:
    task = "seq_classification"
    checkpoint = tiny.save(tmp_path / "checkpoint", "gpt2", task)
    config = json.loads((checkpoint / "config.json").read_text())
    words = json.loads((checkpoint / "tokenizer_config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps({**config, "pad_token_id": -1, "eos_token_id": [7, 8]}))
    nameless = {name: value for name, value in words.items() if not name.endswith("_token")}
    (checkpoint / "tokenizer_config.json").write_text(json.dumps(nameless))
    (checkpoint / "special_tokens_map.json").unlink(missing_ok=True)
    ask = Served(lay_out(tmp_path / "archive", checkpoint, task, mode), task)
    assert ask.handler.tokenizer.pad == 7
    bodies = [{"text": text} for text in ("the room was awful", "a", "good and great and kind")]
    assert differences("", [ask(body)[0] for body in bodies], ask(*bodies), 1e-5) == []
