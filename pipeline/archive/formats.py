"""The formats of archives, as torch-model-archiver's `--archive-format` names them.

CONTRIBUTING.md lists what another one needs beside a row here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

FormatName = Literal["zip-store", "default", "tgz", "no-archive"]
Kind = Literal["zip", "tgz", "no-archive"]
"""How an archive is read: a zip file, a compressed tar file, or a folder."""


@dataclass(frozen=True)
class Format:
    """A format to write: the `suffix` of its file names ("" for folders), the `kind` that it is read as, and whether a
    zip file is `deflated`."""

    name: FormatName
    suffix: str
    kind: Kind
    deflated: bool = False


FORMATS: dict[FormatName, Format] = {
    row.name: row
    for row in (
        Format("zip-store", ".mar", "zip"),
        Format("default", ".mar", "zip", deflated=True),
        Format("tgz", ".tar.gz", "tgz"),
        Format("no-archive", "", "no-archive"),
    )
}
SUFFIXES = tuple(dict.fromkeys(row.suffix for row in FORMATS.values() if row.suffix))
WORDS: dict[Kind, str] = {"zip": "a zip file", "tgz": "a .tar.gz", "no-archive": "a folder"}


def stem(filename: str) -> str:
    """The archive's name: the name of its file or folder without the format's suffix."""
    for suffix in SUFFIXES:
        filename = filename.removesuffix(suffix)
    return filename
