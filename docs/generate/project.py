"""What the generated pages are made of: the only module here that imports the project itself."""

from __future__ import annotations

from typing import Any

import typer.main

from handlers import schema as requests
from handlers.explanation import WORK
from handlers.limits import TOKENS
from pipeline import advisories, environment, errors
from pipeline import settings as config
from pipeline.cli import app
from pipeline.tasks import MODES, TASKS

__all__ = [
    "MODES", "TASKS", "TOKENS", "WORK", "advisories", "commands", "config", "environment", "errors", "requests",
]  # fmt: skip


def commands() -> Any:
    """The command `mar`, as the parser has it: a group of commands."""
    return typer.main.get_command(app)
