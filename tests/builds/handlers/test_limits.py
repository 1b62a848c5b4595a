"""Limits on the windows of one request."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("torch")

from handlers.protocol.problem import Problem
from handlers.text import windows
from tests.support import tiny
from tests.support.unpacked import Served, lay_out

pytestmark = pytest.mark.slow
TEXT = {"token_classification": "text", "question_answering": "context"}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Served]:
    root, made = tmp_path_factory.mktemp("limited"), dict[str, Served]()
    for task in TEXT:
        checkpoint = tiny.save(root / task, "roberta", task)
        made[task] = Served(lay_out(root / f"{task}-archive", checkpoint, task, "pretrained"), task)
    return made.__getitem__


def body(task: str, text: str) -> dict[str, Any]:
    return {TEXT[task]: text} | ({"question": "Who?"} if task == "question_answering" else {})


@pytest.mark.parametrize("task", TEXT)
@pytest.mark.parametrize("character", ["\u6771", "\U0001f600"])
def test_a_text_of_more_tokens_than_a_request_may_have_is_refused(served: Any, task: str, character: str) -> None:
    ask = served(task)
    ran: list[Any] = []
    run, ask.handler.model.run = ask.handler.model.run, lambda batch: ran.append(batch) or run(batch)
    try:
        refused, answered = ask(body(task, character * 200_000), body(task, "a"))
    finally:
        ask.handler.model.run = run
    assert ask.codes == {0: 413}
    assert refused["error"]["field"] == TEXT[task]
    assert "error" not in answered
    assert sum(batch["input_ids"].numel() for batch in ran) < 100


@pytest.mark.parametrize("task", TEXT)
def test_all_inputs_of_a_request_count_together(served: Any, task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ask = served(task)
    one = body(task, "the old man " * 20)
    tokens = sum(len(window) for window in ask.handler._cut(one)[1])
    assert tokens > 64
    monkeypatch.setattr(windows, "TOKENS", 3 * tokens)
    fits, many, instances, other = ask([one] * 3, [one] * 4, {"instances": [one] * 4}, one)
    assert ask.codes == {1: 413, 2: 413}
    assert [many["error"]["field"], instances["error"]["field"]] == [f"[3].{TEXT[task]}", f"instances[3].{TEXT[task]}"]
    assert fits == [other] * 3


@pytest.mark.parametrize("length", [1, 40, 57, 58, 59, 60, 61, 62, 63, 64, 100, 333])
@pytest.mark.parametrize("task", TEXT)
def test_tokens_are_counted_before_there_are_any_windows(
    served: Any, task: str, length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = served(task).handler
    for question in ("Who?", "who was the old man in the room " * 2):
        one = body(task, "a" * length)
        one |= {"question": question} if "question" in one else {}
        tokens = sum(len(window) for window in handler._cut(one)[1])
        monkeypatch.setattr(windows, "TOKENS", tokens)
        handler._cut(one)
        monkeypatch.setattr(windows, "TOKENS", tokens - 1)
        with pytest.raises(Problem, match=f"{tokens} tokens"):
            handler._cut(one)
        monkeypatch.undo()
