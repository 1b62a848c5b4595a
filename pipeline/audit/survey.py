"""One pass over an archive: every file's SHA-256, whether it is a pickle, and the contents of small metadata files."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from ..archive.reader import DAMAGE, MANIFEST, Archive
from ..files.tree import CHUNK
from . import pickles

LARGEST = 16 << 20
"""The most bytes of a file whose contents are kept; of all of them together, four times as many."""

_TEXTS = re.compile(
    r"(.*/)?((config|generation_config|index_to_name|samples|schema|graph|provenance|tokenizer_config|tokenization"
    r"|preprocessor_config)\.json|[^/]*\.py|[^/]*\.ya?ml|[^/]*requirements[^/]*\.txt)"
)


@dataclass(frozen=True)
class File:
    """A file of an archive: size in bytes, hexadecimal SHA-256, first 64 bytes, and the pickle detected in it, if
    any."""

    size: int
    sha256: str
    start: bytes
    pickled: pickles.Pickled | None


@dataclass
class Survey:
    """The files by path (the last one of a repeated path), contents of small files, and the damage of unreadable ones.

    `whole` is False if reading stopped before the archive's end.
    """

    files: dict[str, File] = field(default_factory=dict)
    contents: dict[str, bytes] = field(default_factory=dict)
    damaged: dict[str, str] = field(default_factory=dict)
    whole: bool = True

    def text(self, path: str) -> str | None:
        """The text of a small metadata file; None if it is missing, too large or not UTF-8."""
        data = self.contents.get(path)
        try:
            return None if data is None else data.decode("utf-8-sig")
        except UnicodeDecodeError:
            return None


def survey(archive: Archive) -> Survey:
    """Read all of an archive in chunks. Damage is reported in the result, not raised."""
    model = archive.manifest["model"]
    named = {MANIFEST, *(model[key] for key in ("configFile", "requirementsFile") if isinstance(model.get(key), str))}
    result = Survey()
    streams = archive.streams()
    while True:
        path = ""
        try:
            path, stream = next(streams)
            keep = path in named or _TEXTS.fullmatch(path) is not None
            room = min(LARGEST, 4 * LARGEST - sum(len(data) for data in result.contents.values())) if keep else 0
            result.files[path] = _read(stream.read, path, room, result.contents)
        except StopIteration:
            return result
        except DAMAGE as error:
            result.damaged[path] = str(error).rstrip(".") or type(error).__name__
            # After damage, only zip files and folders can be read further.
            if not path or archive.kind == "tgz":
                result.whole = False
                return result


def _read(read: Callable[[int], bytes], path: str, room: int, contents: dict[str, bytes]) -> File:
    sha, size, pieces = hashlib.sha256(), 0, [b""]
    start = chunk = read(CHUNK)
    while chunk:
        sha.update(chunk)
        size += len(chunk)
        if room:
            pieces = [*pieces, chunk] if size <= room else []
        chunk = read(CHUNK)
    if room and pieces:
        contents[path] = b"".join(pieces)
    return File(size, sha.hexdigest(), start[:64], pickles.look(start, path, whole=size == len(start)))
