"""Every command of the tutorial runs, in the tutorial's order, and prints what the page shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from docs.generate import tutorial
from docs.generate.markdown import DOCS
from docs.generate.tutorial import Step

COMMANDS = [
    (name, number, block.text.strip().splitlines()[0])
    for name in tutorial.PAGES
    for number, block in enumerate(
        [one for one in tutorial.blocks((DOCS / name).read_text(encoding="utf-8")) if one.kind == "bash"]
    )
]
"""Page, number of the block in it, and the block's first line."""


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], Step]:
    """The tutorial, run once as a whole."""
    made: dict[tuple[str, int], Step] = {}
    for step in tutorial.run(tmp_path_factory.mktemp("tutorial")):
        made[step.page, sum(page == step.page for page, _ in made)] = step
    return made


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "number"), [(page, number) for page, number, _ in COMMANDS], ids=[one[2] for one in COMMANDS]
)
def test_a_command_does_what_the_page_says(steps: dict[tuple[str, int], Step], page: str, number: int) -> None:
    step = steps[page, number]
    assert step.code == step.expected_code, step.output
    if step.shown is not None:
        assert tutorial.alike(step.shown.text, step.output), (
            f"the page is stale: make docs-reference WHAT=tutorial\n{step.output}"
        )


def test_every_folder_of_the_tutorial_is_run() -> None:
    assert {f"tutorial/{path.name}" for path in (DOCS / "tutorial").glob("*.md")} == set(tutorial.PAGES)


SHOWN = "verify: done in 13.0 s\n...\n  SHA-256 eea6626c6041961a841f3ee1a046c0553e478a522a391514a955b457668f6cfc\n"
DIGEST = "  SHA-256 0d2fbb0a0c42adcc37788d42ab6bd80fa2322d0855eb31520defc11cd8e9c096\n"


@pytest.mark.parametrize(
    ("output", "same"),
    [
        (f"verify: done in 8.4 s\n{DIGEST}", True),
        (f"verify: done in 8.4 s\none\ntwo\n{DIGEST}", True),
        (f"verify: failed in 8.4 s\n{DIGEST}", False),
        (f"verify: done in 8.4 s\n{DIGEST}more\n", False),
        ("verify: done in 8.4 s\n", False),
    ],
)
def test_output_is_compared_without_its_numbers(output: str, same: bool) -> None:
    assert tutorial.alike(SHOWN, output) is same


def test_output_belongs_to_the_command_straight_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        '```text title="a.txt"\nhello\n```\n\n```bash\ncat a.txt\n```\n\n```text\nhello\n```\n\n'
        "```bash\nexit 3   # exit code 3\n```\n\nSome words.\n\n```text\nnot its output\n```\n",
        encoding="utf-8",
    )
    monkeypatch.setattr(tutorial, "DOCS", tmp_path)
    monkeypatch.setattr(tutorial, "PAGES", ("page.md",))
    first, second = tutorial.run(tmp_path)
    assert (first.output, first.code, first.shown.text if first.shown else None) == ("hello\n", 0, "hello\n")
    assert (second.code, second.expected_code, second.shown) == (3, 3, None)


def test_stale_output_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.md"
    right = "```bash\necho took 3 s\n```\n\n```text\ntook 2 s\n```\n\n```bash\nseq 3\n```\n\n```text\n1\n...\n3\n```\n"
    stale = "\n```bash\necho new words\n```\n\n```text\nold words\n```\n"
    page.write_text(right + stale, encoding="utf-8")
    monkeypatch.setattr(tutorial, "DOCS", tmp_path)
    monkeypatch.setattr(tutorial, "PAGES", ("page.md",))
    assert tutorial.write() == [page]
    assert page.read_text(encoding="utf-8") == right + stale.replace("old words", "new words")
    assert tutorial.write() == []


def test_a_command_with_another_exit_code_stops_the_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.md"
    page.write_text("```bash\nexit 1\n```\n", encoding="utf-8")
    monkeypatch.setattr(tutorial, "DOCS", tmp_path)
    monkeypatch.setattr(tutorial, "PAGES", ("page.md",))
    with pytest.raises(SystemExit, match="exit code 1"):
        tutorial.write()
