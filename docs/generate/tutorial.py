"""The tutorial's pages are run: each command in a ```bash block, in a folder of its own, with a cache of its own.

A block with a title (```yaml title="my-model.yaml") is a file that is written before the commands below it run. A
```text block straight after a command is what it prints. A line in it that is `...` stands for any lines. A command
that ends with `# exit code N` ends with that code; all others end with 0.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from .markdown import DOCS

PAGES = ("tutorial/first-archive.md", "tutorial/your-own-model.md")

_BLOCK = re.compile(
    r"^```(?P<kind>\w+)(?: title=\"(?P<title>[^\"]+)\")?\n(?P<text>.*?)^```\n", re.DOTALL | re.MULTILINE
)
_CODE = re.compile(r"#\s*exit code (\d+)\s*$")
_VARYING = re.compile(r"\b[0-9a-f]{12,64}\b|-?\d[\d.,]*(?:e-\d+)?")
"""Digests and numbers: times and sizes differ from machine to machine."""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page, and where its text lies in the page."""

    kind: str
    title: str | None
    text: str
    start: int
    end: int


@dataclass(frozen=True)
class Step:
    """A block of commands that ran, with what they printed, and the block of output that the page shows."""

    page: str
    commands: str
    expected_code: int
    code: int
    output: str
    shown: Block | None


def blocks(page: str) -> list[Block]:
    """The fenced blocks of a page's text."""
    return [
        Block(match["kind"], match["title"], match["text"], match.start("text"), match.end("text"))
        for match in _BLOCK.finditer(page)
    ]


def run(folder: Path) -> list[Step]:
    """Run every page of the tutorial in that folder, in order."""
    steps: list[Step] = []
    for name in PAGES:
        text = (DOCS / name).read_text(encoding="utf-8")
        fenced = blocks(text)
        for number, block in enumerate(fenced):
            following = fenced[number + 1] if number + 1 < len(fenced) else None
            if block.title:
                (folder / block.title).write_text(block.text, encoding="utf-8")
            elif block.kind == "bash":
                adjacent = (
                    following
                    and following.kind == "text"
                    and not text[block.end : following.start].replace("```", "").replace("text", "").strip()
                )
                steps.append(_run(name, block.text, folder, following if adjacent else None))
    return steps


def _run(page: str, commands: str, folder: Path, shown: Block | None) -> Step:
    mar = Path(sys.executable).parent
    env = {
        **os.environ,
        "PATH": os.pathsep.join((str(mar), os.environ.get("PATH", ""))),
        "MAR_CACHE": str(folder / ".cache" / "mar"),
        "HF_HOME": str(folder / ".cache" / "hf"),
        "HF_HUB_OFFLINE": "1",
        "COLUMNS": "100",
    }
    done = subprocess.run(
        ["bash", "-e", "-c", commands], cwd=folder, env=env, text=True, check=False, timeout=600,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    code = _CODE.search(commands.strip())
    return Step(page, commands, int(code[1]) if code else 0, done.returncode, done.stdout, shown)


def alike(shown: str, output: str) -> bool:
    """Whether a page shows what a command printed: line by line, numbers and digests aside."""
    pattern = "".join(
        r"(?:.*\n)*?" if line.strip() == "..." else re.escape(_plain(line)) + r"\n" for line in shown.splitlines()
    )
    return re.fullmatch(pattern, "".join(f"{_plain(line)}\n" for line in output.splitlines())) is not None


def _plain(line: str) -> str:
    return " ".join(_VARYING.sub("N", line).split())


def write() -> list[Path]:
    """Run the tutorial, and write what its commands print into its pages; which of them changed. An output with `...`
    in it stays as it is while it is right."""
    with tempfile.TemporaryDirectory(prefix="tutorial-") as folder:
        steps = run(Path(folder))
    changed = []
    for name in PAGES:
        path = DOCS / name
        before = text = path.read_text(encoding="utf-8")
        for step in reversed([one for one in steps if one.page == name]):
            if step.code != step.expected_code:
                raise SystemExit(f"{name}: exit code {step.code} of\n{step.commands}\n{step.output}")
            if step.shown is not None and not alike(step.shown.text, step.output):
                text = text[: step.shown.start] + step.output.rstrip("\n") + "\n" + text[step.shown.end :]
        if text != before:
            path.write_text(text, encoding="utf-8")
            changed.append(path)
    return changed
