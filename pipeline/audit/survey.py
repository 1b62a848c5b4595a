"""An archive read once from its beginning to its end, however large it is: each file's digest, what it may be pickled
as, and the bytes of those that are small and wanted."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from ..archive.reader import DAMAGE, MANIFEST, Archive
from ..files.tree import CHUNK
from . import pickles

LARGEST = 16 << 20
"""Bytes of a file that is kept; all kept ones together are four times as many at most."""

_TEXTS = re.compile(
    r"(.*/)?((config|generation_config|index_to_name|samples|schema|graph|provenance|tokenizer_config"
    r"|preprocessor_config)\.json|[^/]*\.py|[^/]*\.ya?ml|[^/]*requirements[^/]*\.txt)"
)


@dataclass(frozen=True)
class File:
    """A file of an archive: its size in bytes, hexadecimal SHA-256, first bytes, and what a look at those found."""

    size: int
    sha256: str
    start: bytes
    pickled: pickles.Pickled | None


@dataclass
class Survey:
    """The files by path (the last one where a path is there twice), and what kept others from being read, by path.

    `whole` is False where the reading could not go on to the archive's end.
    """

    files: dict[str, File] = field(default_factory=dict)
    kept: dict[str, bytes] = field(default_factory=dict)
    damaged: dict[str, str] = field(default_factory=dict)
    whole: bool = True

    def text(self, path: str) -> str | None:
        """A kept file as text; None if it is not there, is too large or is no UTF-8."""
        data = self.kept.get(path)
        try:
            return None if data is None else data.decode("utf-8-sig")
        except UnicodeDecodeError:
            return None


def survey(archive: Archive) -> Survey:
    """Read all of an archive, in chunks. Damage is told, not raised."""
    model = archive.manifest["model"]
    named = {MANIFEST, *(model[key] for key in ("configFile", "requirementsFile") if isinstance(model.get(key), str))}
    found = Survey()
    streams = archive.streams()
    while True:
        path = ""
        try:
            path, stream = next(streams)
            wanted = path in named or _TEXTS.fullmatch(path) is not None
            room = min(LARGEST, 4 * LARGEST - sum(len(data) for data in found.kept.values())) if wanted else 0
            found.files[path] = _read(stream.read, path, room, found.kept)
        except StopIteration:
            return found
        except DAMAGE as error:
            found.damaged[path] = str(error).rstrip(".") or type(error).__name__
            # Only a zip file's members, and files, can be read though one before them cannot.
            if not path or archive.kind == "tgz":
                found.whole = False
                return found


def _read(read: Callable[[int], bytes], path: str, room: int, kept: dict[str, bytes]) -> File:
    sha, size, pieces = hashlib.sha256(), 0, [b""]
    start = chunk = read(CHUNK)
    while chunk:
        sha.update(chunk)
        size += len(chunk)
        if room:
            pieces = [*pieces, chunk] if size <= room else []
        chunk = read(CHUNK)
    if room and pieces:
        kept[path] = b"".join(pieces)
    return File(size, sha.hexdigest(), start[:64], pickles.look(start, path, whole=size == len(start)))
