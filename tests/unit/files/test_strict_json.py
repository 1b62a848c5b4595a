"""What JSON of others is read, and what is a ValueError."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mar_pipeline.files.strict_json import DEEPEST, loads


@pytest.mark.parametrize("value", [None, 1, "é😀", [], {}, [1, {"a": [None]}], {"a": "\ud83d\ude00"}], ids=ascii)
def test_json_is_read_as_json_reads_it(value: Any) -> None:
    text = json.dumps(value)
    assert loads(text) == loads(text.encode()) == loads(b"\xef\xbb\xbf" + text.encode()) == json.loads(text)


@pytest.mark.parametrize("depth", [DEEPEST + 1, 900, 5_000, 200_000])
@pytest.mark.parametrize(("before", "behind"), [("[", "]"), ('{"a":', "}"), ('[{"a":', "}]")])
def test_json_that_is_nested_deeply_is_refused(depth: int, before: str, behind: str) -> None:
    with pytest.raises(ValueError, match="nested more than 100 deep"):
        loads(before * depth + "1" + behind * depth)


def test_json_that_is_nested_a_little_is_read() -> None:
    assert loads("[" * DEEPEST + "]" * DEEPEST)


@pytest.mark.parametrize(
    "text", ["", "{", '{"a"', b"\xff", b"\xff\xfe{\0}\0", '"\\ud800"', '{"\\udc00": 1}', "1" * 5000]
)
def test_what_is_no_text_or_cannot_be_printed_is_refused(text: str | bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (json's own words)
        loads(text)
