"""What a signature of ours states beside the digests: the archive's name and version, and when it was signed.

The signed in-toto statement (https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md) names its subject.
Ours is named by a package URL (https://github.com/package-url/purl-spec):

    pkg:generic/sentiment@1.0?signed=2026-11-30T06:20:00Z

A signature by model_signing's own command has a file's name there, and states nothing of these.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from ..errors import InputError
from ..text import printable
from . import formats
from .reader import Archive

_SUBJECT = re.compile(r"pkg:generic/([^/@?#]+)(?:@([^/@?#]+))?\?signed=([^&#]+)")
_TIME = "%Y-%m-%dT%H:%M:%SZ"
"""RFC 3339, in UTC and in whole seconds."""


@dataclass(frozen=True, kw_only=True)
class Statement:
    """What a verified signature states; None where it does not. `key` is the signer's: the hexadecimal SHA-256 of the
    public key as DER, as `openssl pkey -pubin -in public.pem -outform DER | sha256sum` prints it."""

    key: str
    name: str | None = None
    version: str | None = None
    time: datetime | None = None

    @classmethod
    def of(cls, subject: str, key: str) -> Statement:
        """What the name of a verified statement's subject says."""
        found = _SUBJECT.fullmatch(subject)
        if not found:
            return cls(key=key)
        name, version, signed = (unquote(part) if part else None for part in found.groups())
        try:
            time = datetime.strptime(str(signed), _TIME).replace(tzinfo=timezone.utc)
        except ValueError:
            time = None
        return cls(key=key, name=name, version=version, time=time)

    def as_json(self) -> dict[str, Any]:
        """The fields as JSON values; the time as RFC 3339."""
        return {**vars(self), "time": self.time.strftime(_TIME) if self.time else None}

    @property
    def what(self) -> str:
        """The name and the version, as people read them."""
        return printable(" ".join(filter(None, (self.name, self.version))))

    def __str__(self) -> str:
        when = f"on {self.time:%Y-%m-%d at %H:%M:%S} UTC" if self.time else ""
        stated = " ".join(filter(None, (self.what, when)))
        return f"by the key {self.key[:16]}, {stated or 'which states no name, version or date'}"


def subject(archive: Archive, time: datetime) -> str:
    """The name of an archive's subject. Raises InputError if the file's name is not the one in its manifest, under
    which the signature would be accepted only with `--name`."""
    name, version = of_manifest(archive)
    if name != (filed := file_name(archive.path)):
        raise InputError(
            f"{archive.path} is called {printable(filed)}, and {printable(name)} in its manifest.",
            "TorchServe serves it by its file's name; a signature states the manifest's, and the two are compared.",
            f"Sign it as {printable(name)}, or build it with --name.",
        )
    try:
        parts = [quote(part, safe="") for part in filter(None, (name, version))]
    except UnicodeEncodeError:
        raise InputError(
            f"{archive.path} has a name or a version in its manifest that is no text in UTF-8.",
            fix="Make the archive again with another one.",
        ) from None
    return f"pkg:generic/{'@'.join(parts)}?signed={time.astimezone(timezone.utc).strftime(_TIME)}"


def of_manifest(archive: Archive) -> tuple[str, str | None]:
    """An archive's name and version in its manifest; the file's name if it has none."""
    model = archive.manifest["model"]
    version = model.get("modelVersion")
    return str(model.get("modelName") or file_name(archive.path)), None if version in (None, "") else str(version)


def file_name(archive: Path) -> str:
    """The name by which TorchServe serves an archive: its file's or folder's, without the suffix."""
    # For a folder given as `.`, the name is in its absolute path.
    named = archive if archive.name not in ("", "..") else archive.resolve()
    return formats.stem(named.name)


def check(stated: Statement, archive: Path, name: str | None, not_before: datetime | None) -> None:
    """Raises InputError if a verified signature is of another archive than the one expected, or older than
    `not_before`. Expected is the `name` (NAME or NAME@VERSION) if given, else the file's name."""
    again = "Get the archive and its signature again from whoever signed it."
    if stated.name is not None:
        called, both = name or file_name(archive), f"{stated.name}@{stated.version}"
        if called != stated.name and name != both:
            raise InputError(
                f"{archive} was signed as {stated.what}, and not as {called}.",
                "Another archive of the same signer was put in its place, or it was renamed.",
                f"{again} If it is meant, give --name {printable(stated.name)}.",
            )
        packed = of_manifest(Archive(archive))
        if (stated.name, stated.version) != packed:
            raise InputError(
                f"{archive} is {printable(' '.join(filter(None, packed)))} in its manifest, "
                f"and was signed as {stated.what}.",
                fix=again,
            )
    elif name is not None:
        raise InputError(
            f"The signature of {archive} does not state a name, and {name} is expected.",
            "It is by model_signing's own command, or by an older version of this one.",
            "Sign it again: mar sign",
        )
    if not_before is not None and (stated.time is None or stated.time < not_before):
        when = f"is of {stated.time:%Y-%m-%d %H:%M:%S} UTC" if stated.time else "does not state a date"
        raise InputError(
            f"The signature of {archive} {when}, and none before {not_before:%Y-%m-%d %H:%M:%S} UTC is accepted.",
            "An older archive was put in the place of a newer one, or it was signed too long ago.",
            "Get a newer one, or sign it again if it is meant: mar sign",
        )
