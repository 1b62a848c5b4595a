"""mar.toml: settings of a whole team for every command, in the working folder or its nearest parent that has one.

    [trust]
    keys = ["keys/team.pem"]     # public keys; paths are relative to the file
    require_signed = true
    not_before = 2026-11-01

Options of the command line win over it. The variable MAR_TOML names another file instead; if it is empty, none is read.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timezone
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import InputError
from ..text import near, printable, shown, some

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

NAME = "mar.toml"
VARIABLE = "MAR_TOML"
LARGEST = 1 << 20
"""The most bytes of the file."""


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Trust(_Table):
    """Whose signatures are accepted. A field's description says what it takes."""

    keys: list[str] = Field(default=[], description="a list of paths of public keys (PEM)")
    require_signed: bool = Field(default=False, description="true or false")
    not_before: datetime | date | None = Field(default=None, description="a date without quotes, as 2026-11-01")


class Tables(_Table):
    """The tables of mar.toml."""

    trust: Trust = Field(default=Trust(), description="a table: [trust]")


@dataclass(frozen=True)
class TeamFile:
    """A mar.toml that was read."""

    path: Path
    tables: Tables

    @property
    def keys(self) -> list[Path]:
        """The public keys' files."""
        return [self.path.parent / key for key in self.tables.trust.keys]

    @property
    def not_before(self) -> datetime | None:
        """The time before which no signature is accepted."""
        value = self.tables.trust.not_before
        return value if value is None else in_utc(value)


def in_utc(value: date) -> datetime:
    """A time in UTC: a date's is its midnight, and one without a time zone is in UTC already."""
    if not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)
    try:
        return value.replace(tzinfo=timezone.utc) if value.tzinfo is None else value.astimezone(timezone.utc)
    except OverflowError:  # in the first or the last year that there is
        return value.replace(tzinfo=timezone.utc)


def find(environment: Mapping[str, str] = os.environ) -> Path | None:
    """The path of the mar.toml that holds here, None if there is none."""
    if (named := environment.get(VARIABLE)) is not None:
        return Path(named).absolute() if named else None
    try:
        here = Path.cwd()
    except FileNotFoundError:  # the working folder was removed
        return None
    return next((path for folder in (here, *here.parents) if os.path.lexists(path := folder / NAME)), None)


def read(environment: Mapping[str, str] = os.environ) -> TeamFile | None:
    """The mar.toml that holds here, None if there is none. Raises InputError, with the place, if it cannot be read or
    has a setting that does not exist or a value of another kind."""
    path = find(environment)
    if path is None:
        return None
    try:
        # Reading a pipe would block.
        if path.exists() and not path.is_file():
            raise OSError(0, "it is not a file")
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
    except OSError as error:
        raise InputError(
            f"{path} cannot be read: {error.strerror}.",
            f"It says whose archives are accepted, so no archive is taken without it. {_where_from(environment)}",
            "Make it readable, or remove it.",
        ) from None
    if len(content) > LARGEST:
        raise InputError(f"{path} has more than {LARGEST:,} bytes.", fix="Remove what does not belong there.")
    try:
        text = content.decode()
        return TeamFile(path, Tables.model_validate(tomllib.loads(text)))
    except ValidationError as error:
        detail = error.errors(include_url=False)[0]
        # Without the number in a list and the member of a union.
        where = tuple(map(str, detail["loc"][:2]))
        message = _message(detail["type"], where, detail["input"])
        raise InputError(
            f"{path}:{_line(text, where)}: {message}", _where_from(environment), "Correct that line, or remove it."
        ) from None
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{path} is not TOML: {printable(str(error))}.",
            _where_from(environment),
            'A setting is a line like keys = ["keys/team.pem"] below [trust].',
        ) from None


def _where_from(environment: Mapping[str, str]) -> str:
    if VARIABLE in environment:
        return f"{VARIABLE} names it."
    return f"The nearest {NAME} at or above the working folder holds; {VARIABLE} can name another one."


def _message(kind: str, where: tuple[str, ...], value: object) -> str:
    dotted = printable(".".join(where))[:60]
    fields = Trust.model_fields if where[0] == "trust" and len(where) > 1 else Tables.model_fields
    if kind == "extra_forbidden":
        like = near(where[-1], fields)
        return f"{dotted} does not exist; {f'did you mean {like}?' if like else f'there is {some(list(fields))}.'}"
    takes = fields[where[1] if len(where) > 1 else where[0]].description
    return f"{dotted} takes {takes}, and not {printable(shown(value))}."


def _line(text: str, where: tuple[str, ...]) -> int:
    """The number of the line that sets a key, as far as it can be found; else 1."""
    table: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[+([^\]#]+)\]", line):
            table = _parts(header[1])
            found = table
        else:
            found = (*table, *_parts(line.partition("=")[0])) if "=" in line else ()
        if found == where:
            return number
    return 1


def _parts(key: str) -> tuple[str, ...]:
    return tuple(part.strip().strip("\"'") for part in key.split("."))
