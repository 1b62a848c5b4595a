"""A tree: the listing of a folder's files by content, and how files are digested."""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

CHUNK = 1 << 20

Tick = Callable[[int], None]
"""Told of every so many bytes that were read or written."""


def canonical(value: Any) -> str:
    """The one JSON text of `value`: sorted keys, no spaces, ASCII. Digests of values are made of it."""
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
    """A folder's files, sorted by path; equal contents have equal digests, wherever they lie."""

    entries: tuple[Entry, ...]

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> Tree:
        """The tree of these entries; a ValueError if two of them have one path."""
        found = tuple(sorted(entries))
        paths = [entry.path for entry in found]
        if len(set(paths)) != len(paths):
            raise ValueError(f"two files with one path: {sorted({p for p in paths if paths.count(p) > 1})}")
        return cls(found)

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
        """Bytes in all."""
        return sum(entry.size for entry in self.entries)

    def get(self, path: str) -> Entry | None:
        return next((entry for entry in self.entries if entry.path == path), None)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)


_POLYNOMIAL = 0xEDB88320
"""CRC-32's, its bits reversed, as zip files have it (APPNOTE.TXT 4.4.7)."""


def joined_crc(first: int, second: int, length: int) -> int:
    """The CRC-32 of two runs of bytes together, of theirs and the second one's `length`.

    A CRC is a remainder of polynomials: `length` bytes behind it multiply the first one by x to the 8 `length`.
    """
    power, square = 1 << 31, 1 << 30  # x to the 0, and to the 1: the bits are reversed
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
    """Read `file` once and make its entry under `path`. Without `links`, an OSError (ELOOP) for one."""
    sha, crc, size = hashlib.sha256(), 0, 0
    with os.fdopen(os.open(file, os.O_RDONLY | (0 if links else os.O_NOFOLLOW)), "rb") as stream:
        while chunk := stream.read(CHUNK):
            sha.update(chunk)
            crc = zlib.crc32(chunk, crc)
            size += len(chunk)
            if tick:
                tick(len(chunk))
    return Entry(path, sha.hexdigest(), size, crc)


def walk(folder: Path) -> Iterator[tuple[Path, str]]:
    """Every file below `folder`, sorted, with its path in it."""
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            yield file, file.relative_to(folder).as_posix()
