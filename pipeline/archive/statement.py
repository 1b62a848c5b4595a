"""What a signature of ours states beside the digests: the archive's name and version, and when it was signed.

The name is the file's, by which TorchServe serves the archive, the version that of the manifest.

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
    """The name of an archive's subject: the name of its file, by which TorchServe serves it, and the version in its
    manifest. Raises InputError if they cannot be written."""
    _, version = of_manifest(archive)
    try:
        parts = [quote(part, safe="") for part in filter(None, (file_name(archive.path), version))]
    except UnicodeEncodeError:
        raise InputError(
            f"{archive.path} has a file name or a version in its manifest that is no text in UTF-8.",
            fix="Rename it, or make the archive again with another version.",
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
    return formats.stem(named.name) or named.name


def check(stated: Statement, archive: Path, name: str | None, not_before: datetime | None) -> None:
    """Raises InputError if a verified signature is of another archive than the one expected, or older than
    `not_before`.

    By default, the name of the file has to be the one that was signed. A `name` (NAME or NAME@VERSION) that is given
    has to be that, or the one in the manifest, which is signed as all bytes are.
    """
    again = "Get the archive and its signature again from whoever signed it."
    if name is None and stated.name not in (None, file_name(archive)):
        raise InputError(
            f"{archive} was signed as {stated.what}, and not as {printable(file_name(archive))}.",
            "Another archive of the same signer was put in its place, or it was renamed.",
            f"{again} If it is meant, give --name {printable(str(stated.name))}.",
        )
    packed, version = of_manifest(Archive(archive))
    if stated.name is not None and stated.version != version:
        raise InputError(
            f"{archive} has the version {printable(str(version))} in its manifest, and was signed as {stated.what}.",
            fix=again,
        )
    known = {each for each in (stated.name, packed) if each is not None}
    if name is not None and name not in known | {f"{each}@{version}" for each in known}:
        raise InputError(
            f"{archive} is {printable(packed)} {printable(str(version))}, and {name} is expected.",
            "Another archive of the same signer was put in its place, or --name is wrong.",
            again,
        )
    if not_before is not None and (stated.time is None or stated.time < not_before):
        when = f"is of {stated.time:%Y-%m-%d %H:%M:%S} UTC" if stated.time else "does not state a date"
        raise InputError(
            f"The signature of {archive} {when}, and none before {not_before:%Y-%m-%d %H:%M:%S} UTC is accepted.",
            "An older archive was put in the place of a newer one, or it was signed too long ago.",
            "Get a newer one, or sign it again if it is meant: mar sign",
        )
