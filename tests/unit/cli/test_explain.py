"""`mar explain`: what it shows, on the terminal and as a page."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from handlers.protocol import tensors
from mar_pipeline import __main__ as command
from mar_pipeline.cli import explanation
from mar_pipeline.errors import InputError
from mar_pipeline.text import visible


def told(text: str, field: str = "text", target: str = "good") -> dict[str, Any]:
    """An explanation in which the whole of `text` is one word."""
    words = [{"text": text, "field": field, "start": 0, "end": len(text), "importance": 0.5}]
    return {"target": target, "value": 1.0, "baseline": 0.5, "delta": 0.0, "tokens": [], "words": words}


def tensor(name: str, *texts: str) -> dict[str, Any]:
    return {"name": name, "shape": [len(texts)], "datatype": "BYTES", "data": list(texts)}


def test_a_tensor_of_explanations_is_unpacked() -> None:
    answers = [told("a"), told("b")]
    reply = tensors.reply("m", None, answers)
    for name in ("text", "whatever"):
        found = explanation.pairs({"inputs": [tensor(name, "a", "b")]}, reply)
        assert found == [({"text": "a"}, answers[0]), ({"text": "b"}, answers[1])]
    both = told("who")
    both["words"] += told("Tom", "context")["words"]
    both["words"][0]["field"] = "question"
    request = {"inputs": [tensor("context", "Tom"), tensor("question", "who")], "id": "1"}
    (pair,) = explanation.pairs(request, tensors.reply("m", "1", [both]))
    assert pair == ({"question": "who", "context": "Tom"}, both)


def test_a_prompt_may_have_been_sent_as_text() -> None:
    one = told("a cat", "prompt")
    for request in ({"prompt": "a cat"}, {"text": "a cat"}, "a cat"):
        assert explanation.pairs(request, one) == [({"prompt": "a cat"}, one)]


NASTY = "\x1b[31mred\x1b]0;title\x07\x9b2J\ud83d\tand\nso"
SEEN = "\\u001b[31mred\\u001b]0;title\\u0007\\u009b2J\\ud83d\tand\nso"


def test_control_characters_are_shown_and_not_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    assert visible(NASTY) == SEEN
    one = told(NASTY, target="\x1b[2Jgood")
    one["words"].append({**one["words"][0], "start": 3, "end": 5})
    pairs = [({"text": NASTY + "\x1bc"}, one)]
    explanation.show(pairs)
    shown = capsys.readouterr().out + explanation.page("\x1bname", pairs)
    for text in ("\\u001b[2Jgood", "\\u001b[31mred", "\\u001bc", "\\u009b2J", "<h1>\\u001bname"):
        assert text in shown
    assert not {letter for letter in shown if (letter < " " and letter != "\n" and letter != "\t") or letter == "\x9b"}
    shown.encode()


def test_a_page_that_cannot_be_written_is_refused_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mar_pipeline.cli.commands.run.read_input", lambda _: pytest.fail("work was begun"))
    (tmp_path / "file").write_text("")
    for place in ("nowhere/x.html", "file/x.html", ".", "x" * 300 + ".html"):
        assert command.run(["explain", "a.mar", "--input", "a", "--html", str(tmp_path / place)]) == 2
        out, err = capsys.readouterr()
        assert (out, "--html" in err, len(err.splitlines()) <= 3) == ("", True, True)
    with pytest.raises(explanation.InputError):
        explanation.write(tmp_path, "page")


def test_a_page_goes_into_a_pipe_only_if_somebody_reads_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "page.html")
    with pytest.raises(InputError, match="it is a pipe that nobody reads"):
        explanation.write(tmp_path / "page.html", "<p>")
    reader = os.open(tmp_path / "page.html", os.O_RDONLY | os.O_NONBLOCK)
    explanation.write(tmp_path / "page.html", "<p>")
    assert os.read(reader, 9) == b"<p>"
    os.close(reader)
