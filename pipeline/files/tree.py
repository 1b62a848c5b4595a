"""A tree: the listing of a folder's files with their digests; and hashing files."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .opening import opened

CHUNK = 1 << 20

Tick = Callable[[int], None]
"""Progress: called with the number of bytes that were just read or written."""


def canonical(value: Any) -> str:
    """The canonical JSON text of `value`: sorted keys, no spaces, ASCII. Digests of values are computed from it."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def text_digest(text: str) -> str:
    """Hexadecimal SHA-256 of a text's UTF-8 bytes."""
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, order=True)
class Entry:
    """A file: its path in the folder (with `/`), hexadecimal SHA-256, size in bytes, CRC-32 as in zip files."""

    path: str
    sha256: str
    size: int
    crc32: int


@dataclass(frozen=True)
class Tree:
    """A folder's files, sorted by path. Equal contents have equal digests, wherever the folder is."""

    entries: tuple[Entry, ...]

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> Tree:
        """The tree of these entries. Raises ValueError if two of them have the same path."""
        ordered = tuple(sorted(entries))
        paths = [entry.path for entry in ordered]
        if len(set(paths)) != len(paths):
            raise ValueError(f"two files with the same path: {sorted({p for p in paths if paths.count(p) > 1})}")
        return cls(ordered)

    @classmethod
    def from_json(cls, text: str) -> Tree:
        return cls(tuple(Entry(**item) for item in json.loads(text)))

    def to_json(self) -> str:
        return canonical([asdict(entry) for entry in self.entries])

    @property
    def digest(self) -> str:
        return text_digest(self.to_json())

    @property
    def size(self) -> int:
        """Total bytes."""
        return sum(entry.size for entry in self.entries)

    def get(self, path: str) -> Entry | None:
        return next((entry for entry in self.entries if entry.path == path), None)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)


_POLYNOMIAL = 0xEDB88320
"""CRC-32's polynomial with its bits reversed, as in zip files (APPNOTE.TXT 4.4.7)."""


def joined_crc(first: int, second: int, length: int) -> int:
    """The CRC-32 of two concatenated byte strings, from their CRCs and the `length` of the second.

    A CRC is a remainder of polynomials: appending `length` bytes multiplies the first one by x to the power 8 `length`.
    """
    power, square = 1 << 31, 1 << 30  # x^0 and x^1, with reversed bits
    bits = 8 * length
    while bits:
        if bits & 1:
            power = _times(power, square)
        square = _times(square, square)
        bits >>= 1
    return _times(first, power) ^ second


def _times(one: int, other: int) -> int:
    product = 0
    for bit in range(31, -1, -1):
        if one >> bit & 1:
            product ^= other
        other = other >> 1 ^ (_POLYNOMIAL if other & 1 else 0)
    return product


def scan(file: Path, path: str, tick: Tick | None = None, *, links: bool = True) -> Entry:
    """Read `file` once and return its entry under `path`. Raises OSError if it is not a regular file, and without
    `links` for a symbolic link (ELOOP)."""
    sha, crc, size = hashlib.sha256(), 0, 0
    with opened(file, links=links) as stream:
        while chunk := stream.read(CHUNK):
            sha.update(chunk)
            crc = zlib.crc32(chunk, crc)
            size += len(chunk)
            if tick:
                tick(len(chunk))
    return Entry(path, sha.hexdigest(), size, crc)


def walk(folder: Path) -> Iterator[tuple[Path, str]]:
    """Every file below `folder`, sorted, with its path relative to it."""
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            yield file, file.relative_to(folder).as_posix()
