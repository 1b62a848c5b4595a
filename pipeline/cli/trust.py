"""The options of commands that run or check archives, and how they and mar.toml decide which archives are accepted."""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import InputError
from . import console

if TYPE_CHECKING:
    from ..archive.statement import Statement

KeysOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--key",
        metavar="FILE",
        help="A signer's public key (PEM): refuse an archive that is not signed by it. Instead of mar.toml's keys.",
        show_default=False,
    ),
]
RequireSignedOption = Annotated[
    bool | None,
    typer.Option(
        "--require-signed/--no-require-signed",
        help="Whether to refuse an archive that is not signed; yes with --key, else as mar.toml says.",
        show_default=False,
    ),
]
NotBeforeOption = Annotated[
    str | None,
    typer.Option(
        "--not-before",
        metavar="DATE",
        help="Refuse a signature that is older, as 2026-11-01 (UTC).",
        show_default=False,
    ),
]
SignedNameOption = Annotated[
    str | None,
    typer.Option(
        "--name",
        metavar="NAME[@VERSION]",
        help="The archive that has to be signed; by default, the one that the file is called after.",
        show_default=False,
    ),
]


def accept(
    archives: Iterable[Path],
    keys: list[Path] | None,
    require_signed: bool | None,
    not_before: str | None,
    name: str | None = None,
) -> dict[Path, Statement]:
    """Verify the signatures of archives, before anything of them is parsed or run. What the signatures state, by
    archive; an unsigned one that is accepted nevertheless is warned of.

    Raises InputError for an archive that is not accepted, and if there is no key where one is needed.
    """
    from ..config import team_file

    team = team_file.read()
    used = keys or (team.keys if team else [])
    since = _time(not_before) or (team.not_before if team else None)
    demanded = bool(keys or not_before or name)
    required = require_signed
    if required is None:
        # What was asked for on the command line cannot be waived by a file.
        required = demanded or bool(team and team.tables.trust.require_signed)
    if not used:
        # A team's date without keys is a mistake.
        if required or demanded or (since and require_signed is None):
            raise InputError(
                "A signature is required, and there is no public key to verify it with.",
                fix=f'Give --key public.pem, or keys = ["public.pem"] below [trust] in {team_file.NAME}.',
            )
        return {}
    from ..archive import signing

    if team and not keys:
        console.note(f"Signatures are verified with the keys of {team.path}.")
    accepted = {}
    for archive in archives:
        # A pipe or a folder in the signature's place is no unsigned archive.
        if not required and not os.path.lexists(signing.signature_path(archive)):
            console.warning(f"{archive} is not signed.")
            continue
        accepted[archive] = signing.verify(archive, *used, name=name, not_before=since)
    return accepted


def note(accepted: dict[Path, Statement]) -> None:
    """Say who signed each archive."""
    for archive, stated in accepted.items():
        console.note(f"{archive.name} is signed {stated}.")


def _time(text: str | None) -> datetime | None:
    from ..config.team_file import in_utc

    if text is None:
        return None
    try:
        return in_utc(datetime.fromisoformat(text.removesuffix("Z") + "+00:00" * text.endswith("Z")))
    except ValueError:
        raise InputError(
            f"--not-before {text!r} is not a date.", fix="Write it as 2026-11-01, or as 2026-11-01T12:00:00Z."
        ) from None
