"""docs/assets/build.svg: a real build and a real answer, drawn as a terminal."""

from __future__ import annotations

import io
import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

from .markdown import DOCS

FILE = DOCS / "assets" / "build.svg"

COMMANDS = (
    ("mar", "build", "--task", "seq_classification"),
    ("mar", "run", "build/model-store/seq_classification.mar", "--input", "What a lovely walk by the river!"),
)
WIDTH = 100


def write() -> list[Path]:
    """Run the commands in an empty folder with an empty cache, and draw what they print."""
    screen = Console(record=True, width=WIDTH, file=io.StringIO(), highlight=False)
    with tempfile.TemporaryDirectory(prefix="recording-") as folder:
        for command in COMMANDS:
            screen.print(Text.assemble(("$ ", "bold green"), (shlex.join(command), "bold")))
            screen.print(Text.from_ansi(_output(command, Path(folder))), soft_wrap=False)
            screen.print()
    # No font from elsewhere: a reader's own will do, and a page without the network shows the same.
    plain = re.sub(r"@font-face \{\{.*?\}\}\n", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(screen.export_svg(title="mar build", code_format=plain, unique_id="mar"), encoding="utf-8")
    return [FILE]


def _output(command: tuple[str, ...], folder: Path) -> str:
    tools = Path(sys.executable).parent
    env = {
        **os.environ,
        "PATH": os.pathsep.join((str(tools), os.environ.get("PATH", ""))),
        "MAR_CACHE": str(folder / ".cache"),
        "COLUMNS": str(WIDTH),
    }
    done = subprocess.run(
        command, cwd=folder, env=env, text=True, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    return done.stdout.rstrip("\n")
