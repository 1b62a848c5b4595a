"""The project's modules that the generated pages need: no other module here imports the project."""

from __future__ import annotations

from typing import Any

import typer.main

from handlers.inference.explanation import WORK
from handlers.protocol import schema as requests
from handlers.text.windows import TOKENS
from mar_pipeline import errors
from mar_pipeline.answers import tolerance
from mar_pipeline.cli.app import app
from mar_pipeline.config import settings as config
from mar_pipeline.config import values
from mar_pipeline.host import advisories, environment
from mar_pipeline.host.chips import CHIPS
from mar_pipeline.model.address import KINDS as ADDRESSES
from mar_pipeline.sources import KINDS
from mar_pipeline.sources.objects.services import SERVICES
from mar_pipeline.tasks import MODES, TASKS

__all__ = [
    "ADDRESSES", "CHIPS", "KINDS", "MODES", "SERVICES", "TASKS", "TOKENS", "WORK", "advisories", "commands", "config",
    "environment", "errors", "requests", "tolerance", "values",
]  # fmt: skip


def commands() -> Any:
    """The command `mar`, as the parser has it: a group of commands."""
    return typer.main.get_command(app)
