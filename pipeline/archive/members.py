"""The members of an archive: their metadata, which names are refused, and how their bytes are read."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import IO, Any

from ..errors import InputError
from ..files.tree import CHUNK
from ..text import printable
from ..text import size as bytes_of
from .findings import SHOWN, Finding, Findings

STORED, DEFLATED = 0, 8
"""The compression methods that TorchServe's reader supports (APPNOTE.TXT 4.4.5)."""

MOST = 65_535
"""The most members in an archive: as many as a zip file without zip64 records can list."""

_LONGEST_PATH, _LONGEST_NAME = 1024, 255  # bytes; every file system that TorchServe runs on allows as much

_SMALL, _RATIO, _LARGEST = 1 << 30, 100, 1 << 40
"""An archive may unpack to _SMALL bytes, or to _RATIO times its own size if that is more, up to _LARGEST. Text packs to
a fifth, weights to no less than a half; deflate packs zeros to a thousandth."""

AGAIN = "Build the archive again with mar build or torch-model-archiver."


@dataclass(frozen=True)
class Member:
    """A file of an archive: its path in it, and its size in bytes, unpacked and as stored.

    `name` is its name as the archive stores it, `place` the offset of its bytes: in the zip file, or in the unpacked
    tar file. `crc32` is None where the format has none. `link` marks a symbolic link of a zip file; it is read as a
    file that contains the link's target.
    """

    path: str
    size: int
    stored: int
    name: str = ""
    place: int = 0
    method: int = STORED
    crc32: int | None = None
    link: bool = False


@dataclass(frozen=True)
class Index:
    """The files of an archive in its own order, its folders, and the contents of small files by path.

    `contents` has only what was read while indexing: small files of a tar file.
    """

    members: tuple[Member, ...]
    folders: tuple[str, ...] = ()
    contents: Mapping[str, bytes] = field(default_factory=dict)


class Damage(ValueError):
    """A member's bytes do not match the size, CRC-32 or compression that the archive declares."""


class Fault(Exception):
    """Why an archive can be read in more than one way: one finding or several."""

    def __init__(self, *findings: Finding) -> None:
        super().__init__(findings[0].what)
        self.findings = findings


def room(size: int) -> int:
    """The most bytes that an archive of `size` bytes may unpack to."""
    return min(max(_SMALL, _RATIO * size), _LARGEST)


def too_much(size: int) -> Fault:
    """Why an archive of `size` bytes is not unpacked: it holds more than `room`."""
    return fault(
        "",
        f"has {bytes_of(size)} and unpacks to more than {bytes_of(room(size))}: it would fill the disk",
        "Do not use this archive unless you know who made it.",
    )


def fault(where: str, what: str, do: str = AGAIN) -> Fault:
    return Fault(Finding("error", printable(where), what, do))


class Refused(InputError):
    """An archive that TorchServe may read differently from this program, or that would unpack outside of its folder.

    `findings` has every finding; the message has the first.
    """

    def __init__(self, path: object, findings: tuple[Finding, ...]) -> None:
        self.findings = findings
        first = findings[0]
        about = f": {printable(first.where)} " if first.where else " "
        more = f" ({len(findings) - 1} more: see mar check)" if len(findings) > 1 else ""
        super().__init__(
            f"{path} is refused{about if first.where else ': it '}{first.what}{more}.",
            "An archive is read only if TorchServe cannot unpack anything else from it.",
            first.do,
        )


def check_names(entries: Iterable[tuple[str, bool]]) -> None:
    """Check the names of members, given as (path, is a folder). Raises Fault if they can be unpacked in several
    ways."""
    findings = tuple(_named(list(entries)))
    if findings:
        raise Fault(*findings)


def _named(entries: list[tuple[str, bool]]) -> Findings:
    bad = 0
    counts: dict[str, int] = {}
    files: set[str] = set()
    for path, folder in entries:
        counts[path] = counts.get(path, 0) + 1
        if not folder:
            files.add(path)
        if bad < SHOWN and (why := _bad(path)):
            bad += 1
            what, do = why
            yield Finding("error", ascii(path)[1:-1], what, do)
    for path in [path for path, count in counts.items() if count > 1][:SHOWN]:
        yield Finding(
            "error",
            printable(path),
            f"is in the archive {counts[path]} times: which of them is served depends on the program that unpacks it",
            AGAIN,
        )
    for path in _in_the_way(counts, files)[:SHOWN]:
        yield Finding(
            "error", printable(path), "is a file, and a folder of the same name is there: it cannot be unpacked", AGAIN
        )


def _in_the_way(paths: Iterable[str], files: set[str]) -> list[str]:
    """Files whose path is also a folder of other files."""
    blocking: dict[str, None] = {}
    seen: set[str] = set()
    for path in paths:
        folder = path.rpartition("/")[0]
        while folder and folder not in seen:
            seen.add(folder)
            if folder in files:
                blocking[folder] = None
            folder = folder.rpartition("/")[0]
    return list(blocking)


def _bad(path: str) -> tuple[str, str] | None:
    """Why a path cannot be unpacked as it is, and what to do; None if it can."""
    parts = path.replace("\\", "/").split("/")
    if path.startswith(("/", "\\")) or ".." in parts or parts[0][1:2] == ":" or "\0" in path:
        return (
            "leads out of the archive's folder: unpacked, it would be written over other files",
            "Do not use this archive unless you know who made it.",
        )
    if "\\" in path:
        return (
            "has a backslash in its name, which some systems read as a separator",
            "Pack it with / in its name.",
        )
    if "" in parts or "." in parts:
        return "is not a normalized path: unpacked, it becomes a different one", AGAIN
    if len(path.encode()) > _LONGEST_PATH or any(len(part.encode()) > _LONGEST_NAME for part in parts):
        return "has a longer name than file systems allow: it cannot be unpacked", "Give it a shorter name."
    return None


def unpacked(file: IO[bytes], member: Member) -> Iterator[bytes]:
    """The unpacked bytes of a zip file's member in chunks. Raises Damage if the packed bytes do not end where they
    should, or the unpacked ones do not have the size and CRC-32 that the archive declares."""
    file.seek(member.place)
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS) if member.method == DEFLATED else None
    left, size, crc = member.stored, 0, 0
    while left and not (unpacker and unpacker.eof):
        packed = file.read(min(left, CHUNK))
        if not packed:
            raise Damage("it is cut short")
        left -= len(packed)
        for chunk in inflated(unpacker, packed) if unpacker else (packed,):
            size, crc = size + len(chunk), zlib.crc32(chunk, crc)
            if size > member.size:
                raise Damage(f"it unpacks to more than the {member.size} bytes that the archive declares")
            yield chunk
    if unpacker and (left or unpacker.unused_data):
        raise Damage(f"its packed data ends {left + len(unpacker.unused_data)} bytes before its declared end")
    if unpacker and not unpacker.eof:
        raise Damage("its packed data does not end at its declared end")
    if size != member.size:
        raise Damage(f"it unpacks to {size} bytes, but the archive declares {member.size}")
    if crc != member.crc32:
        raise Damage("its CRC-32 is not the one that the archive declares")


def inflated(unpacker: Any, packed: bytes) -> Iterator[bytes]:
    """Decompress bytes into chunks of at most CHUNK bytes. Raises Damage."""
    while True:
        try:
            chunk = unpacker.decompress(packed, CHUNK)
        except zlib.error as error:
            raise Damage(f"its packed data is malformed ({error})") from None
        if chunk:
            yield chunk
        packed = unpacker.unconsumed_tail
        # After a full chunk, more output may be pending although all input was consumed.
        if unpacker.eof or (not packed and len(chunk) < CHUNK):
            return


class _Chunks(io.RawIOBase):
    """Chunks as a file that is read sequentially."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks, self._rest = chunks, memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._rest:
            self._rest = memoryview(next(self._chunks, b""))
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size


def as_file(chunks: Iterator[bytes], size: int) -> IO[bytes]:
    """Chunks of `size` bytes in total as a file that is read sequentially."""
    return io.BufferedReader(_Chunks(chunks), max(1, min(size, CHUNK)))


class _Part(io.RawIOBase):
    """A range of an open file, as a seekable file."""

    def __init__(self, whole: IO[bytes], start: int, size: int) -> None:
        self._whole, self._start, self._size, self._at = whole, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, place: int, whence: int = 0) -> int:
        self._at = max(0, place + (0, self._at, self._size)[whence])
        return self._at

    def readinto(self, buffer: Any) -> int:
        self._whole.seek(self._start + self._at)
        data = self._whole.read(max(0, min(len(buffer), self._size - self._at)))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def part(whole: IO[bytes], start: int, size: int) -> IO[bytes]:
    """`size` bytes from offset `start` of an open file, as a seekable file."""
    return io.BufferedReader(_Part(whole, start, size))
