"""Values and lines, compared with PyYAML's own loader, for the C parser and for the Python one."""

from __future__ import annotations

import pytest
import yaml

from mar_pipeline.files import yaml as yaml_lines
from mar_pipeline.files.yaml import parse

TEXT = """\
# a comment
minWorkers: 1
handler:
  labels: [no, "yes", maybe]
  ratio: 0.5

  generation: {top_k: 3,
               top_p: 0.9}
  text: |
    two
    lines
verify:
  samples:
    - text: one
    - text: two
      top_k: 2
"""


@pytest.fixture(params=["c", "python"])
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "c" and not yaml.__with_libyaml__:
        pytest.skip("PyYAML without libyaml")
    base = yaml.CSafeLoader if request.param == "c" else yaml.SafeLoader
    monkeypatch.setattr(yaml_lines, "_LOADER", yaml_lines.loader(base))
    return request.param


@pytest.mark.usefixtures("parser")
def test_values_are_those_of_yaml():
    document = parse(TEXT)
    assert document.problems == []
    assert document.data == yaml.safe_load(TEXT)


@pytest.mark.usefixtures("parser")
def test_each_key_and_item_has_its_line():
    lines = parse(TEXT).lines
    rows = TEXT.splitlines()
    for where, line in lines.items():
        if where and isinstance(where[-1], str):
            assert f"{where[-1]}:" in rows[line - 1], where
    assert lines[("handler", "generation", "top_p")] == 8
    assert lines[("handler", "text")] == 9
    assert lines[("verify", "samples", 1)] == 15
    assert lines[("verify", "samples", 1, "top_k")] == 16


@pytest.mark.usefixtures("parser")
def test_words_are_kept_as_written():
    texts = parse("a: 1.10\nb: [no, 0x1F]\n").texts
    assert texts == {("a",): "1.10", ("b", 0): "no", ("b", 1): "0x1F"}


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("1e-4", 1e-4),
        ("-1.5E+3", -1500.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("1_000", 1000),
        ("0x1F", 31),
        ("0", 0),
        ("-7", -7),
        ("yes", True),
        ("Off", False),
        ("TRUE", True),
        ("~", None),
        ("", None),
        ("Null", None),
        ("y", "y"),
        ("010", "010"),
        ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"),
        ("0o17", "0o17"),
        ("1.2.3", "1.2.3"),
        ("'1'", "1"),
        ("!!str 1", "1"),
        ("=", "="),
    ],
)
@pytest.mark.usefixtures("parser")
def test_a_plain_word_means_what_people_mean(word, value):
    document = parse(f"a: {word}\n")
    assert document.problems == []
    assert document.data["a"] == value
    assert type(document.data["a"]) is type(value)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: 1\nb: .inf\n", 2),
        ("a: 1\nb: 1e999\n", 2),
        ("a: 1\nb: !!int x\n", 2),
        ("a: 1\nb: !!bool x\n", 2),
        ("a: 1\nb: !!float x\n", 2),
        ("a: 1\nb: !!binary aGk=\n", 2),
        ("a: 1\nb: !!set {x}\n", 2),
        ("a: 1\n\na: 2\n", 3),
        ("a:\n  b: 1\n  'b': 2\n", 3),
        ("a: 1\n[b]: 2\n", 2),
        ("a: [\n1,\n", 2),
        ("a: 1\n--- \nb: 1\n", 2),
        ("a: 1\nb: &x\n  c: *x\n", 2),
    ],
)
@pytest.mark.usefixtures("parser")
def test_a_problem_has_its_line(text, line):
    (problem,) = parse(text).problems
    assert problem.line == line


@pytest.mark.usefixtures("parser")
def test_merged_keys_give_way_to_written_ones_and_keep_their_lines():
    text = "one: &one {a: 1, b: 1}\ntwo: &two {b: 2, c: 2}\nall:\n  c: 3\n  <<: [*one, *two]\n"
    document = parse(text)
    assert document.data == yaml.safe_load(text)
    assert document.data["all"] == {"a": 1, "b": 1, "c": 3}
    assert (document.lines[("all", "a")], document.lines[("all", "c")]) == (1, 4)


@pytest.mark.parametrize(
    "text",
    ["[" * 400_000, "[" * 400_000 + "]" * 400_000, "- " * 400_000, "? " * 400_000, "a: {" * 200_000],
    ids=["open", "closed", "items", "keys", "mappings"],
)
def test_deep_nesting_is_refused_without_exhausting_the_stack(text):
    (problem,) = parse(text).problems
    assert problem.message == "nested more than 32 deep"


@pytest.mark.usefixtures("parser")
def test_an_empty_text_has_no_data_and_no_problem():
    assert parse("# nothing\n") == yaml_lines.Document()
