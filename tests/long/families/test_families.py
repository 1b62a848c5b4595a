"""What docs/reference/families.md says is what builds. (That their answers are right in every form: tests/handlers.)"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import tiny

from . import table
from .matrix import Case, build_all, cases

REQUIRED = (
    "albert", "bert", "deberta-v2", "distilbert", "electra", "gpt2", "gpt_neox", "llama", "modernbert", "mpnet", "opt",
    "qwen2", "roberta", "xlm-roberta",
)  # fmt: skip


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Another page, not there yet."""
    monkeypatch.setattr(table, "PAGE", tmp_path / "families.md")
    return tmp_path / "families.md"


BUILT = {
    Case("bert", "seq_classification", "pretrained"): None,
    Case("bert", "seq_classification", "torchscript"): "It differs by 0.25.",
    Case("gpt2", "text_generation", "pretrained"): None,
    Case("gpt2", "text_generation", "torchscript"): "It differs by 0.25.",
}


@pytest.mark.slow
def test_the_page_says_what_builds_on_this_line_of_transformers(tmp_path: Path) -> None:
    found = table.difference(table.part(build_all(tmp_path, cases())))
    assert not found, f"to write it: make test-matrix WRITE=1\n{found}"


def test_the_page_has_every_family_on_both_lines() -> None:
    assert set(REQUIRED) <= set(tiny.FAMILIES)
    assert list(table.parts()) == list(table.LINES)
    for text in table.parts().values():
        assert [row.split(" | ")[0] for row in text.splitlines() if row.startswith("| ")][1:] == [
            f"| {family}" for family in tiny.FAMILIES
        ]


def test_a_part_has_a_row_for_a_family_and_a_note_for_an_error(page: Path) -> None:
    assert not page.exists()
    lines = table.part(BUILT).splitlines()
    assert lines[-4:] == [
        "| bert | yes | no (1) | – | – | – | – | – | – |",
        "| gpt2 | – | – | – | – | – | – | yes | no (1) |",
        "",
        "1. bert seq_classification torchscript; gpt2 text_generation torchscript: It differs by 0.25.",
    ]


def test_a_line_writes_its_own_part_and_leaves_the_others(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in ("4", "5"):
        monkeypatch.setattr(table, "line", lambda number=number: number)
        table.write(table.part(BUILT))
    assert list(table.parts()) == ["5", "4"]
    text = page.read_text(encoding="utf-8")
    table.write(table.part(BUILT))
    assert page.read_text(encoding="utf-8") == text
    table.write(table.part(dict.fromkeys(BUILT)))
    assert table.parts()["4"] in text
    assert table.parts()["5"] not in text


@pytest.mark.usefixtures("page")
def test_a_difference_is_another_cell_and_no_other_number() -> None:
    assert "+| gpt2 |" in table.difference(table.part(BUILT))
    table.write(table.part(BUILT))
    other = {case: said and said.replace("0.25", "3e-05") for case, said in BUILT.items()}
    assert not table.difference(table.part(other))
    (case, *_) = BUILT
    assert "no (#)" in table.difference(table.part({**BUILT, case: "It is not there."}))
