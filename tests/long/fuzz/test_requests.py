"""Requests and envelopes, as TorchServe gives them to a handler."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import strategies as st

from mar_pipeline.handlers.protocol import requests
from mar_pipeline.handlers.protocol.problem import Problem
from mar_pipeline.tasks import TASKS

from .changes import changed_bytes, changed_json, text_of
from .harness import Reader, check

_TENSOR = {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["x"], "parameters": {"content_type": "str"}}
_BODIES = [
    {"text": "x", "text_pair": "y", "top_k": 2, "target": "a"},
    {"question": "who?", "context": "Anna.", "top_k": 2, "max_answer_length": 3, "handle_impossible_answer": True},
    {"prompt": "x", "parameters": {"max_new_tokens": 3, "temperature": 0.5, "stop": ["a"], "seed": 1}, "stream": True},
    {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]},
    {"instances": [{"text": "x"}, "y"]},
    {"inputs": [_TENSOR], "id": "1", "outputs": [{"name": "answer"}], "parameters": {}},
    {"text": "x", "at": 1, "target": [1, 2], "steps": 5},
    ["x", {"text": "y"}],
]
_ROWS = [
    *({"body": body} for body in _BODIES),
    {"data": "x"},
    {"text": "x", "top_k": "2", "parameters.top_k": "3", "target": "a"},
    {"body": {"text": "x"}, "target": "a"},
    {"parameters": '{"max_new_tokens": 2}', "prompt": "x"},
]


def read(data: bytes, folder: Path) -> None:
    """The input as a body that is not parsed, as fields of a form, and as one of TorchServe's rows in JSON."""
    del folder
    text = data
    rows = [{"body": text}, {"text": text, "parameters": bytearray(text)}]
    try:
        row = json.loads(text)
        rows += [row] if isinstance(row, dict) else []
    except (ValueError, RecursionError):
        pass
    for task in TASKS:
        for explain in (False, True):
            for row in rows:
                try:
                    request = requests.parse(row, task, explain=explain)
                except Problem:
                    continue
                request.answers = [{"label": "a"}] * len(request.inputs)
                json.dumps([request.answer("model"), [request.place(number) for number in range(len(request.inputs))]])


_right = st.one_of(changed_json(_ROWS), changed_json(_BODIES)).map(text_of)
READER = Reader("requests", read, st.one_of(_right, changed_bytes(_right), st.binary(max_size=300)), ())


@pytest.mark.slow
def test_no_request_ends_the_handler(tmp_path: Path) -> None:
    check(READER, tmp_path)
