"""JSON files of an archive: what is not JSON is an error that names the place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mar_pipeline.audit import json_syntax
from tests.support.archiver import findings, make, rewrite

BAD = {
    '{"a": 1': "line 1, column 8",
    "": "line 1, column 1",
    "{'a': 1}": "line 1, column 2",
    '{"a": 1}\n{"b": 2}': "line 2, column 1",
    '{"a": 1,\n "b": }': "line 2, column 7",
    '{"a": {"b": 1, "b": 2}}': 'the key "b" is given twice',
    '{"a": 1, "\\u0061": 2}': 'the key "a" is given twice',
    "[1,\n\n NaN]": "line 3: NaN is not JSON",
    '{"a": "NaN", "b": -Infinity}': "line 1: -Infinity is not JSON",
    "[" * 100_000 + "]" * 100_000: "nested more than 100 deep",
    "[" * 101 + "]" * 101: "line 1: it is nested more than 100 deep",
    '{"a":\n' * 101 + "1" + "}" * 101: "line 101: it is nested more than 100 deep",
    "[" + "9" * 5000 + "]": "Exceeds the limit",
    '\ufeff{"a": 1}': "byte order mark",
}

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@pytest.mark.parametrize("text", BAD, ids=lambda text: ascii(text[:20]))
def test_what_is_not_json_is_refused_with_its_place(text: str) -> None:
    with pytest.raises(json_syntax.NotJson) as refused:
        json_syntax.check(text)
    assert BAD[text] in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100 + "]" * 100,
        '["[[[[", "NaN \\" Infinity", "\\\\"]' + " " * 9,
        '{"a": {"a": 1}}',
        "[" + "[]," * 500 + "1]",
    ],
    ids=lambda text: text[:20],
)
def test_what_is_json_is_not(text: str) -> None:
    json_syntax.check(text)


@given(VALUES)
def test_whatever_python_writes_is_json(value: object) -> None:
    json_syntax.check(json.dumps(value))
    json_syntax.check(json.dumps(value, ensure_ascii=False, indent=1))


def test_the_number_of_lists_and_objects_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_syntax, "MOST", 100)
    with pytest.raises(json_syntax.NotJson, match="more than 100"):
        json_syntax.check("[" * 101)


@pytest.mark.parametrize(
    "path",
    ["config.json", "index_to_name.json", "samples.json", "tokenizer.json", "more/x.JSON", "MAR-INF/MANIFEST.json"],
)
def test_every_json_file_of_an_archive_is_read(tmp_path: Path, path: str) -> None:
    text = b'{"model": {"modelName": "m", "modelName": "n"}}'
    archive = make(tmp_path)
    lines = findings(rewrite(archive, {path: text}), "error")
    assert [line for line in lines if line.startswith(f'{path}: is not JSON: the key "modelName" is given twice')]


def test_numbers_that_only_python_reads_are_a_warning_in_a_models_settings(tmp_path: Path) -> None:
    text = b'{"model_type": "mamba2", "time_step_limit": [0.0, Infinity]}'
    archive = make(tmp_path, {"config.json": text, "samples.json": b"[NaN]"})
    assert [line.partition(":")[0] for line in findings(archive, "error")] == ["samples.json"]
    (line,) = findings(archive, "warning")
    assert line.startswith("config.json: is not JSON: line 1: Infinity")
