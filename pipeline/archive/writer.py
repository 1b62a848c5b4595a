"""Writes archives: the members that torch-model-archiver would pack, reproducibly. Weights are read once and written
once, and their CRC-32 is checked on the way.

The zip file is APPNOTE.TXT's (4.3 for the records, 4.5.3 for sizes beyond 4 GiB), with sizes and CRC-32 in front of
each member, since TorchServe reads it as a stream (java.util.zip.ZipInputStream).
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import re
import struct
import tarfile
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from threading import BoundedSemaphore, Thread
from typing import IO

from ..errors import InputError
from ..files.tree import CHUNK, Entry, Tick, joined_crc, scan

EPOCH = 315_532_800
"""1980-01-01, the earliest time that a zip file can store, in seconds since 1970."""

_LAST = 4_354_819_198  # 2107-12-31, the latest
_FULL = 0xFFFFFFFF  # in a 32-bit field: the value is in the zip64 extra field (APPNOTE.TXT 4.5.3)
_FAR = _FULL  # members from this offset on use zip64
_WIDE = 0xFF000000  # members from this size on use zip64; deflated, one may grow by a thousandth


class Wrong(Exception):
    """A member's bytes do not match its entry."""

    def __init__(self, entry: Entry) -> None:
        super().__init__(entry.path)
        self.entry = entry


@dataclass(frozen=True)
class Member:
    """A file to pack: its entry (path in the archive, size, digests), and its source: a path, or the bytes."""

    entry: Entry
    source: Path | bytes

    @classmethod
    def of(cls, path: str, data: bytes) -> Member:
        return cls(Entry(path, hashlib.sha256(data).hexdigest(), len(data), zlib.crc32(data)), data)

    def chunks(self, tick: Tick) -> Iterator[bytes]:
        """Its bytes. Raises Wrong if they do not match the entry; a surplus is never yielded."""
        crc = size = 0
        with io.BytesIO(self.source) if isinstance(self.source, bytes) else self.source.open("rb") as source:
            while chunk := source.read(CHUNK):
                crc, size = zlib.crc32(chunk, crc), size + len(chunk)
                if size > self.entry.size or (size == self.entry.size and crc != self.entry.crc32):
                    raise Wrong(self.entry)
                yield chunk
                tick(len(chunk))
        if size != self.entry.size:
            raise Wrong(self.entry)


def epoch(environment: str | None) -> int:
    """The archive's timestamp in seconds since 1970: the value of SOURCE_DATE_EPOCH, EPOCH if that is unset.

    Raises InputError if it is not a number.
    """
    if not environment:
        return EPOCH
    # Eleven digits reach the year 5138; more digits are out of range for a date.
    if not re.fullmatch(r"[0-9]{1,11}", environment):
        raise InputError(
            f"SOURCE_DATE_EPOCH is {environment!r}, which is not a number of seconds since 1970.",
            fix="Unset it, or set it as `git log -1 --format=%ct` prints it.",
        )
    return int(environment)


def refuse(paths: Sequence[str], keeps: Callable[[str], bool]) -> None:
    """Raises InputError for a path that an archive cannot contain, for two paths that would be the same file, and for
    folders that torch-model-archiver drops (`keeps` is false)."""
    by_folded: dict[str, str] = {}
    for path in paths:
        *folders, name = path.split("/")
        if not all((*folders, name)) or {".", ".."} & {*folders, name} or not path.isprintable() or "\\" in path:
            raise InputError(f"{path!r} cannot be a file's name in an archive.", fix="Rename it in the checkpoint.")
        left_out = [folder for folder in folders if not keeps(folder)]
        if left_out:
            raise InputError(
                f"{path}: torch-model-archiver drops folders like {left_out[0]}.", fix="Rename the folder."
            )
        other = by_folded.setdefault(path.casefold(), path)
        if other != path or len(paths) != len(set(paths)):
            raise InputError(
                f"{other} and {path} would be the same file of the archive"
                + (" on a case-insensitive file system." if other != path else "."),
                fix="Rename one of them in the checkpoint.",
            )


def write_zip(target: Path, members: Sequence[Member], seconds: int, tick: Tick, *, deflated: bool) -> Entry:
    """Write a zip file, its members stored or `deflated`, and return its entry. Raises Wrong.

    `seconds` is the members' timestamp since 1970.
    """
    if deflated:
        _write_deflated(target, members, seconds, tick)
        return scan(target, target.name)
    with target.open("wb") as file, _Summed(file) as out:
        directory = bytearray()
        for member in members:
            header = _Header(member.entry, out.size, seconds, method=0)
            out.write(header.local())
            out.write_member(member, tick)
            directory += header.central()
        out.write(bytes(directory) + _end(len(members), len(directory), out.size))
    return Entry(target.name, out.sha256, out.size, out.crc32)


class _Summed:
    """A file whose SHA-256, CRC-32 and size are computed while it is written; SHA-256, the slowest, in its own
    thread."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.sha256, self.crc32, self.size = "", 0, 0
        self._chunks: SimpleQueue[bytes] = SimpleQueue()
        self._ahead = BoundedSemaphore(16)  # chunks that are written but not digested

    def __enter__(self) -> _Summed:
        self._thread = Thread(target=self._digest, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._chunks.put(b"")
        self._thread.join()

    def _digest(self) -> None:
        sha = hashlib.sha256()
        while chunk := self._chunks.get():
            sha.update(chunk)
            self._ahead.release()
        self.sha256 = sha.hexdigest()

    def write(self, data: bytes) -> None:
        """Write a few bytes."""
        self.crc32 = zlib.crc32(data, self.crc32)
        self._put(data)

    def write_member(self, member: Member, tick: Tick) -> None:
        """Write a member's bytes. Raises Wrong."""
        for chunk in member.chunks(tick):
            self._put(chunk)
        self.crc32 = joined_crc(self.crc32, member.entry.crc32, member.entry.size)

    def _put(self, data: bytes) -> None:
        self._ahead.acquire()
        self._chunks.put(data)
        self.size += len(data)
        self._file.write(data)


def _write_deflated(target: Path, members: Sequence[Member], seconds: int, tick: Tick) -> None:
    directory = bytearray()
    with target.open("wb") as out:
        for member in members:
            header = _Header(member.entry, out.tell(), seconds, method=8)
            out.write(header.local())
            begin, packer = out.tell(), zlib.compressobj(zlib.Z_DEFAULT_COMPRESSION, zlib.DEFLATED, -15)
            for chunk in member.chunks(tick):
                out.write(packer.compress(chunk))
            out.write(packer.flush())
            header.stored = out.tell() - begin
            out.seek(header.place)
            out.write(header.local())
            out.seek(0, os.SEEK_END)
            directory += header.central()
        out.write(bytes(directory) + _end(len(members), len(directory), out.tell()))


def write(target: Path, member: Member, tick: Tick) -> None:
    """Write a member to a file of its own. Raises Wrong."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as out:
        for chunk in member.chunks(tick):
            out.write(chunk)


class _Header:
    """A member's local header and its entry in the central directory."""

    def __init__(self, entry: Entry, place: int, seconds: int, *, method: int) -> None:
        self.entry, self.place, self.stored = entry, place, entry.size
        self._name = entry.path.encode()
        self._wide = entry.size >= _WIDE
        year, month, day, hour, minute, second = time.gmtime(min(max(seconds, EPOCH), _LAST))[:6]
        time_of_day, date = hour << 11 | minute << 5 | second // 2, (year - 1980) << 9 | month << 5 | day
        # Bit 11: the name is UTF-8.
        flags = 0 if entry.path.isascii() else 0x800
        needs = 45 if self._wide or place >= _FAR else 20
        self._common = struct.pack("<HHHHHI", needs, flags, method, time_of_day, date, entry.crc32)

    def _sizes(self, stored: int, size: int) -> bytes:
        return struct.pack("<II", *((_FULL, _FULL) if self._wide else (stored, size)))

    def local(self) -> bytes:
        extra = struct.pack("<HHQQ", 1, 16, self.entry.size, self.stored) if self._wide else b""
        lengths = struct.pack("<HH", len(self._name), len(extra))
        return b"PK\3\4" + self._common + self._sizes(self.stored, self.entry.size) + lengths + self._name + extra

    def central(self) -> bytes:
        wide = [self.entry.size, self.stored] if self._wide else []
        far = self.place >= _FAR
        wide += [self.place] if far else []
        extra = struct.pack(f"<HH{len(wide)}Q", 1, 8 * len(wide), *wide) if wide else b""
        # Made on Unix (3), version 4.5; a regular file with mode 644.
        rest = struct.pack(
            "<HHHHHII", len(self._name), len(extra), 0, 0, 0, 0o100644 << 16, _FULL if far else self.place
        )
        sizes = self._sizes(self.stored, self.entry.size)
        return b"PK\1\2" + struct.pack("<BB", 45, 3) + self._common + sizes + rest + self._name + extra


def _end(count: int, length: int, place: int) -> bytes:
    """The end records of a zip file: count of members, length and offset of the central directory."""
    if count < 0xFFFF and place < _FAR and length < _FAR:
        return b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, count, count, length, place, 0)
    wide = b"PK\6\6" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, count, count, length, place)
    locator = b"PK\6\7" + struct.pack("<IQI", 0, place + length, 1)
    return wide + locator + b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, 0xFFFF, 0xFFFF, _FULL, _FULL, 0)


def write_tar(target: Path, members: Sequence[Member], seconds: int, tick: Tick, *, root: str) -> Entry:
    """Write a compressed tar file with all members in the folder `root`, and return its entry. Raises Wrong."""
    with (
        target.open("wb") as out,
        gzip.GzipFile("", "wb", 9, out, mtime=min(seconds, _FULL)) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for member in members:
            info = tarfile.TarInfo(f"{root}/{member.entry.path}")
            info.size, info.mtime, info.mode = member.entry.size, seconds, 0o644
            tar.addfile(info, _Stream(member.chunks(tick)))
    return scan(target, target.name)


class _Stream(io.RawIOBase):
    """Chunks as a file that is read sequentially."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks, self._rest = chunks, b""

    def read(self, size: int = -1) -> bytes:
        parts, left = [], size
        while left:
            self._rest = self._rest or next(self._chunks, b"")
            if not self._rest:
                break
            parts.append(self._rest[:left])
            self._rest = self._rest[left:]
            left -= len(parts[-1])
        return b"".join(parts)
