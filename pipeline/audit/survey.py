"""One pass over an archive: every file's SHA-256, whether it is known to be harmless, and the contents of small
metadata files."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from ..archive.reader import DAMAGE, MANIFEST, Archive
from ..files.tree import CHUNK
from . import examine, packed
from .content import HELD, TAIL, Content, Problem

LARGEST = 16 << 20
"""The most bytes of a file whose contents are kept; of all of them together, four times as many."""

_TEXTS = re.compile(
    r"(.*/)?((config|generation_config|index_to_name|samples|schema|graph|provenance|tokenizer_config|tokenization"
    r"|preprocessor_config)\.json|[^/]*\.py|[^/]*\.ya?ml|[^/]*requirements[^/]*\.txt)"
)


@dataclass(frozen=True)
class File:
    """A file of an archive: size in bytes, hexadecimal SHA-256, first 64 bytes, and why it is not known to be harmless,
    if it was examined and is not."""

    size: int
    sha256: str
    start: bytes
    problem: Problem | None


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


def survey(archive: Archive, *, examined: bool = False) -> Survey:
    """Read all of an archive in chunks. Damage is reported in the result, not raised. Only if asked to, it is
    `examined` whether the files are harmless."""
    model = archive.manifest["model"]
    named = {MANIFEST, *(model[key] for key in ("configFile", "requirementsFile") if isinstance(model.get(key), str))}
    result, budget = Survey(), packed.Budget()
    streams = archive.streams()
    while True:
        path = ""
        try:
            path, stream = next(streams)
            keep = path in named or _TEXTS.fullmatch(path) is not None
            room = min(LARGEST, 4 * LARGEST - sum(len(data) for data in result.contents.values())) if keep else 0
            content, sha256 = _read(archive, stream.read, path)
            if room and content.whole is not None and content.size <= room:
                result.contents[path] = content.whole
            problem = examine.problem(content, budget) if examined else None
            result.files[path] = File(content.size, sha256, content.start[:64], problem)
        except StopIteration:
            return result
        except DAMAGE as error:
            result.damaged[path] = str(error).rstrip(".") or type(error).__name__
            # After damage, only zip files and folders can be read further.
            if not path or archive.kind == "tgz":
                result.whole = False
                return result


def _read(archive: Archive, read: Callable[[int], bytes], path: str) -> tuple[Content, str]:
    """What is examined of a file, and its SHA-256."""
    start = read(CHUNK)
    # The header of a large model's weights is longer than a chunk.
    longer = 8 + int.from_bytes(start[:8], "little") if path.lower().endswith(".safetensors") else 0
    while len(start) < longer <= HELD and (more := read(CHUNK)):
        start += more
    sha, size, end, kept = hashlib.sha256(start), len(start), start[-TAIL:], _kept(path, start)
    pieces = [start]
    while chunk := read(CHUNK):
        sha.update(chunk)
        size += len(chunk)
        end = (chunk if len(chunk) >= TAIL else end + chunk)[-TAIL:]
        pieces = [*pieces, chunk] if kept and size <= HELD else []
    whole = b"".join(pieces) if size == sum(map(len, pieces)) else None
    return Content(path, size, start, end, whole, partial(archive.open, path)), sha.hexdigest()


def _kept(path: str, start: bytes) -> bool:
    """Whether all of a file is needed to know its kind: of texts, compressed files, and a few others."""
    return b"\0" not in start or path.lower().endswith((".model", ".png")) or packed.is_compressed(start)
