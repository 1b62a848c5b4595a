"""`mar inspect`, `mar diff` and `mar check`: archives looked at, without a model being loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ...errors import DIFFERENT, InputError
from .. import report
from ..options import Archived, JsonOption


def inspect(archive: Archived, as_json: JsonOption = False) -> None:
    """Show what is in an archive: its files, settings and provenance."""
    from ...archive.contents import describe

    found = describe(archive)
    print(json.dumps(found, ensure_ascii=False) if as_json else report.tree(found))


def diff(
    first: Annotated[Path, typer.Argument(metavar="A", help="A .mar, a .tar.gz or a folder.", show_default=False)],
    second: Annotated[Path, typer.Argument(metavar="B", help="Another one.", show_default=False)],
    as_json: JsonOption = False,
) -> None:
    """Show what differs between two archives, and what that means; exit code 5 if anything does."""
    from ...audit.diff import compare, show

    found = compare(first, second)
    print(json.dumps(found, ensure_ascii=False) if as_json else show(found))
    if not found["same"]:
        raise typer.Exit(DIFFERENT)


def check(
    archive: Archived,
    key: Annotated[
        Path | None, typer.Option("--key", help="The public key (PEM) of whoever has to have signed it.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Hold an archive against its own record and TorchServe's rules, and look for what may do harm."""
    from ...audit.check import check as examine
    from ...audit.check import show

    if key is not None:
        from ...archive.signing import verify

        # What nobody has signed is not even read as an archive.
        verify(archive, key)
    found = examine(archive)
    print(json.dumps(found, ensure_ascii=False) if as_json else show(found))
    if not found["ok"]:
        raise typer.Exit(InputError.exit_code)
