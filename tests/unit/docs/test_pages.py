"""The pages' links lead somewhere, and the commands that they show exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from docs.generate import commands, markdown, tutorial

ROOT = markdown.ROOT
TOP = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "configs/README.md")]
PAGES = [*TOP, *sorted((ROOT / "docs").glob("**/*.md"))]

named = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())


def outside_code(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and MkDocs make them."""
    titles = re.findall(r"^#+ (.+)$", outside_code(page.read_text(encoding="utf-8")), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@named
def test_links_lead_to_files_and_headings(page: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", outside_code(page.read_text(encoding="utf-8"))):
        if target.startswith(("https://", "http://", "mailto:")):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    assert broken == []


def shown(text: str) -> list[list[str]]:
    """Every command line of `mar` in a page's blocks for a shell, by words."""
    blocks = [block.text for block in tutorial.blocks(text) if block.kind == "bash"]
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    starts = (re.sub(r"^(\w+=\S+ )*", "", line.strip()) for line in lines)
    return [shlex.split(line.split(" > ")[0], comments=True) for line in starts if line.startswith("mar ")]


@named
def test_commands_and_options_exist(page: Path) -> None:
    known = {tuple(name.split()): commands.options(command) for name, command in commands.walk()}
    for words in shown(page.read_text(encoding="utf-8")):
        name = next((tuple(words[:count]) for count in (3, 2) if tuple(words[:count]) in known), None)
        assert name is not None, f"no such command: {' '.join(words)}"
        unknown = {word.partition("=")[0] for word in words if word.startswith("--")} - known[name]
        assert not unknown, f"{' '.join(words)}: no such option"


def test_the_commands_of_a_block_are_read_as_a_shell_reads_them() -> None:
    assert shown("```bash\nX=1 mar serve --port 80 > log   # comment\nls\nmar run \\\n  a.mar\n```\n") == [
        ["mar", "serve", "--port", "80"],
        ["mar", "run", "a.mar"],
    ]


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        missing = set(re.findall(r"(?:`|^)make ([a-z][\w-]*)", text, flags=re.MULTILINE)) - targets
        assert not missing, page


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_the_pages_name_nothing_of_the_machine_that_wrote_them() -> None:
    for page in [*PAGES, *(ROOT / "docs" / "assets").glob("*.svg")]:
        assert not re.findall(r"/(?:tmp|root)/\S*", page.read_text(encoding="utf-8")), page
