"""Writes an archive's file: the members that torch-model-archiver would put in it, with nothing that differs between
two builds. Weights are written once, by the kernel where it can, and held against their CRC-32 in what was written.

The zip file is APPNOTE.TXT's (4.3 for the records, 4.5.3 for sizes beyond 4 GiB), with sizes and CRC-32 in front of
each member, since TorchServe's reader streams it (java.util.zip.ZipInputStream).
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import os
import struct
import tarfile
import time
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from .errors import InputError
from .tree import CHUNK, Entry, Tick, joined_crc, scan, sha256

EPOCH = 315_532_800
"""The first of 1980, the earliest time that a zip file can hold, in seconds since the epoch."""

_LAST = 4_354_819_198  # the last of 2107, likewise the latest
_FULL = 0xFFFFFFFF  # in four bytes: look for the number among zip64's, of eight
_FAR = _FULL  # so far into the file is a place that gets them
_WIDE = 0xFF000000  # so long is a member that gets them; deflated, it may be a thousandth longer


class Wrong(Exception):
    """A member's bytes are not those of its entry."""

    def __init__(self, entry: Entry) -> None:
        super().__init__(entry.path)
        self.entry = entry


@dataclass(frozen=True)
class Member:
    """A file of an archive: its entry, whose path is the one in the archive, and where its bytes are."""

    entry: Entry
    source: Path | bytes

    @classmethod
    def of(cls, path: str, data: bytes) -> Member:
        return cls(Entry(path, hashlib.sha256(data).hexdigest(), len(data), zlib.crc32(data)), data)

    def open(self) -> IO[bytes]:
        return io.BytesIO(self.source) if isinstance(self.source, bytes) else self.source.open("rb")


def epoch(environment: str | None) -> int:
    """The time that an archive is said to be of: of SOURCE_DATE_EPOCH's text, else EPOCH. Raises InputError."""
    if not environment:
        return EPOCH
    if not environment.isascii() or not environment.isdigit():
        raise InputError(
            f"SOURCE_DATE_EPOCH is {environment!r}, and not seconds since 1970.",
            fix="Unset it, or set it as `git log -1 --format=%ct` prints it.",
        )
    return int(environment)


def refuse(paths: Sequence[str], keeps: Callable[[str], bool]) -> None:
    """Raises InputError for the first path that an archive cannot hold, two that would be one file, and folders that
    torch-model-archiver does not keep."""
    seen: dict[str, str] = {}
    for path in paths:
        *folders, name = path.split("/")
        if not all((*folders, name)) or {".", ".."} & {*folders, name} or not path.isprintable() or "\\" in path:
            raise InputError(f"{path!r} cannot be a file's name in an archive.", fix="Rename it in the checkpoint.")
        left_out = [folder for folder in folders if not keeps(folder)]
        if left_out:
            raise InputError(
                f"{path}: torch-model-archiver leaves out folders like {left_out[0]}.", fix="Rename the folder."
            )
        other = seen.setdefault(path.casefold(), path)
        if other != path or len(paths) != len(set(paths)):
            raise InputError(
                f"{other} and {path} would be one file of the archive"
                + (" where a file system takes capitals for small letters." if other != path else "."),
                fix="Rename one of them in the checkpoint.",
            )


def write_zip(target: Path, members: Sequence[Member], seconds: int, tick: Tick, *, deflated: bool) -> Entry:
    """A zip file, its members as they are or `deflated`; its entry, named as the file. Raises Wrong."""
    places = fill_zip(target, members, seconds, tick, deflated=deflated)
    with ThreadPoolExecutor(1) as pool:
        digest = pool.submit(sha256, target)
        crc = _checked_crc(target, [] if deflated else places)
        return Entry(target.name, digest.result(), target.stat().st_size, crc)


def fill_zip(
    target: Path, members: Sequence[Member], seconds: int, tick: Tick, *, deflated: bool
) -> list[tuple[int, Entry]]:
    """Write a zip file, and no more: what it holds is not read again. Where each member's bytes begin."""
    directory, places = bytearray(), []
    with target.open("wb") as out:
        for member in members:
            header = _Header(member.entry, out.tell(), seconds, 8 if deflated else 0)
            out.write(header.local())
            places.append((out.tell(), member.entry))
            if deflated:
                header.stored = _deflate(member, out, tick)
                out.seek(header.place)
                out.write(header.local())
                out.seek(0, os.SEEK_END)
            else:
                _copy(member, out, tick)
            directory += header.central()
        out.write(bytes(directory) + _end(len(members), len(directory), out.tell()))
    return places


class _Header:
    """What a zip file says of a member: in front of it, and in its directory."""

    def __init__(self, entry: Entry, place: int, seconds: int, method: int) -> None:
        self.entry, self.place, self.stored = entry, place, entry.size
        self._name = entry.path.encode()
        self._wide = entry.size >= _WIDE
        year, month, day, hour, minute, second = time.gmtime(min(max(seconds, EPOCH), _LAST))[:6]
        time_of_day, date = hour << 11 | minute << 5 | second // 2, (year - 1980) << 9 | month << 5 | day
        # Names that are not ASCII are UTF-8 by this flag.
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
        # Made on Unix (3) by a writer of version 4.5; a plain file that its owner may write to, and all may read.
        rest = struct.pack(
            "<HHHHHII", len(self._name), len(extra), 0, 0, 0, 0o100644 << 16, _FULL if far else self.place
        )
        sizes = self._sizes(self.stored, self.entry.size)
        return b"PK\1\2" + struct.pack("<BB", 45, 3) + self._common + sizes + rest + self._name + extra


def _end(count: int, length: int, place: int) -> bytes:
    """What closes a zip file: where its directory is, and how long."""
    if count < 0xFFFF and place < _FAR and length < _FAR:
        return b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, count, count, length, place, 0)
    wide = b"PK\6\6" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, count, count, length, place)
    locator = b"PK\6\7" + struct.pack("<IQI", 0, place + length, 1)
    return wide + locator + b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, 0xFFFF, 0xFFFF, _FULL, _FULL, 0)


def _copy(member: Member, out: IO[bytes], tick: Tick) -> None:
    """Append a member's bytes as they are: by the kernel, which shares them where the file system can."""
    out.flush()
    with member.open() as source:
        left = member.entry.size
        try:
            while left and (count := os.copy_file_range(source.fileno(), out.fileno(), min(left, 64 * CHUNK))):
                left -= count
                tick(count)
        except (io.UnsupportedOperation, AttributeError):
            pass
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM):
                raise
            source.seek(member.entry.size - left)
        while left and (chunk := source.read(min(left, CHUNK))):
            out.write(chunk)
            left -= len(chunk)
            tick(len(chunk))
        out.flush()
    out.seek(0, os.SEEK_END)
    if left:
        raise Wrong(member.entry)


def write(target: Path, member: Member, tick: Tick) -> None:
    """A member as a file of its own. Raises Wrong."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as out:
        _copy(member, out, tick)
    _checked_crc(target, [(0, member.entry)])


def _deflate(member: Member, out: IO[bytes], tick: Tick) -> int:
    """Append a member's bytes as zipfile compresses them; how many."""
    packer, begin, crc = zlib.compressobj(zlib.Z_DEFAULT_COMPRESSION, zlib.DEFLATED, -15), out.tell(), 0
    with member.open() as source:
        while chunk := source.read(CHUNK):
            crc = zlib.crc32(chunk, crc)
            out.write(packer.compress(chunk))
            tick(len(chunk))
    out.write(packer.flush())
    if crc != member.entry.crc32:
        raise Wrong(member.entry)
    return out.tell() - begin


def _checked_crc(file: Path, places: Sequence[tuple[int, Entry]]) -> int:
    """A file's CRC-32. Raises Wrong for the first of the entries, each where it begins, that the file does not hold."""
    crc = at = 0
    with file.open("rb") as stream:

        def run(length: int | None = None) -> tuple[int, int]:
            found = count = 0
            while length is None or count < length:
                chunk = stream.read(CHUNK if length is None else min(CHUNK, length - count))
                if not chunk:
                    break
                found, count = zlib.crc32(chunk, found), count + len(chunk)
            return found, count

        for begin, entry in places:
            between, count = run(begin - at)
            crc = joined_crc(crc, between, count)
            found, count = run(entry.size)
            if found != entry.crc32:
                raise Wrong(entry)
            crc, at = joined_crc(crc, found, count), begin + count
        last, count = run()
        return joined_crc(crc, last, count)


def write_tar(target: Path, members: Sequence[Member], seconds: int, tick: Tick, *, root: str) -> Entry:
    """A compressed tar file with everything in the folder `root`; its entry, named as the file. Raises Wrong."""
    with (
        target.open("wb") as out,
        gzip.GzipFile("", "wb", 9, out, mtime=min(seconds, _FULL)) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for member in members:
            info = tarfile.TarInfo(f"{root}/{member.entry.path}")
            info.size, info.mtime, info.mode = member.entry.size, seconds, 0o644
            with member.open() as source:
                noted = _Noted(source, tick)
                try:
                    tar.addfile(info, noted)
                except OSError as error:
                    if "unexpected end" in str(error):  # tarfile's own, for a file that is too short
                        raise Wrong(member.entry) from None
                    raise
            if noted.crc != member.entry.crc32:
                raise Wrong(member.entry)
    return scan(target, target.name)


class _Noted(io.RawIOBase):
    """A file that takes the CRC-32 of what is read from it."""

    def __init__(self, source: IO[bytes], tick: Tick) -> None:
        self._source, self._tick, self.crc = source, tick, 0

    def read(self, size: int = -1) -> bytes:
        chunk = self._source.read(size)
        self.crc = zlib.crc32(chunk, self.crc)
        self._tick(len(chunk))
        return chunk
