"""The index of a compressed tar file, read as commons-compress reads it: header by header, 512 bytes each.
Their fields are those of POSIX.1-2017 (pax); GNU tar's manual has the long names.

Python's tarfile ends at a header that makes no sense, and commons-compress goes on; Python's gzip reads on into a
second member, and Java does not. So whatever is not plain is refused.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ..files.tree import CHUNK
from ..text import printable
from .findings import SHOWN, Finding
from .members import MOST, Damage, Fault, Index, Member, as_file, check_names, fault, inflated

BLOCK = 512
_POSIX, _GNU = b"ustar\x0000", b"ustar  \x00"
_FILES, _FOLDER, _PAX, _LONG = (b"0", b"\0"), b"5", b"x", b"L"
_LINKS = (b"1", b"2", b"3", b"4", b"6")  # links, devices and pipes
_LONGEST_RECORD = 1 << 16  # bytes of a pax header, or of a long name
_KEPT, _ALL_KEPT = 1 << 20, 16 << 20  # bytes of a file that is kept, and of all

_OCTAL = re.compile(rb" *[0-7]+[ \0]+|\0+")
_NUMBER = re.compile(r"[0-9]{1,18}")
_TIME = re.compile(r"-?[0-9]{1,12}(\.[0-9]{1,12})?")

# What a pax header may say: all else changes in some programs what is read.
_PAX_KEYS: dict[str, re.Pattern[str]] = {
    "size": _NUMBER,
    "uid": _NUMBER,
    "gid": _NUMBER,
    "mtime": _TIME,
    "atime": _TIME,
    "ctime": _TIME,
    "path": re.compile(r"[^\0]+"),
    "uname": re.compile(r"[^\0]+"),
    "gname": re.compile(r"[^\0]+"),
}


def unpacked(path: Path) -> Iterator[bytes]:
    """The bytes of a gzip file of one member, in chunks. Raises Damage if it is cut short or has other bytes than its
    CRC-32 and size tell, Fault if it goes on behind its end."""
    unpacker = zlib.decompressobj(16 + zlib.MAX_WBITS)
    with path.open("rb") as file:
        while not unpacker.eof:
            packed = file.read(CHUNK // 4)
            if not packed:
                raise Damage("it is cut short")
            yield from inflated(unpacker, packed)
        if unpacker.unused_data or file.read(1):
            raise fault("", "goes on behind its gzip member, where TorchServe stops reading and other programs go on")


def streams(path: Path, members: Iterable[Member]) -> Iterator[tuple[Member, IO[bytes]]]:
    """The bytes of these members of an index, in its order, each to be read before the next."""
    reader = _Reader(path)
    for member in members:
        reader.skip(member.place - reader.at)
        yield member, as_file(map(bytes, reader.pieces(member.size)), member.size)


class _Reader:
    """The unpacked bytes, taken piece by piece."""

    def __init__(self, path: Path) -> None:
        self._chunks = unpacked(path)
        self._rest = memoryview(b"")
        self.at = 0

    def some(self, most: int) -> memoryview:
        """At most so many bytes; none at the end."""
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                break
            self._rest = memoryview(chunk)
        taken, self._rest = self._rest[:most], self._rest[most:]
        self.at += len(taken)
        return taken

    def pieces(self, size: int) -> Iterator[memoryview]:
        """Exactly so many bytes. Raises Damage if there are fewer."""
        while size:
            piece = self.some(min(size, CHUNK))
            if not piece:
                raise Damage("it is cut short")
            size -= len(piece)
            yield piece

    def take(self, size: int) -> bytes:
        return b"".join(self.pieces(size))

    def skip(self, size: int) -> None:
        for _ in self.pieces(size):
            pass


@dataclass
class _Header:
    """A header's name, kind and size in bytes."""

    name: str
    kind: bytes
    size: int


def index(path: Path, wanted: str) -> Index:
    """The members of a compressed tar file. Raises Fault unless it can be read in one way only, and Damage if it cannot
    be read up to the file `wanted`."""
    found = _Found()
    try:
        found.read(_Reader(path))
    except Damage as damage:
        if not any(member.path == wanted for member in found.members):
            raise
        raise fault("", f"is damaged: {damage}", "Build it again, or copy it again.") from None
    if found.links:
        raise Fault(*found.links[:SHOWN])
    check_names([*((m.path, False) for m in found.members), *((f, True) for f in found.folders if f)])
    return Index(tuple(found.members), tuple(folder for folder in found.folders if folder), found.kept)


class _Found:
    """What was met so far."""

    def __init__(self) -> None:
        self.members: list[Member] = []
        self.folders: list[str] = []
        self.kept: dict[str, bytes] = {}
        self.links: list[Finding] = []
        self._room = _ALL_KEPT

    def read(self, reader: _Reader) -> None:
        while (header := _next(reader)) is not None:
            if header.kind in _FILES:
                self._file(header, reader)
            elif header.kind == _FOLDER:
                if header.size or not header.name.endswith("/"):
                    raise fault(header.name, "is a folder whose header makes no sense")
                self.folders.append(_inside(header.name).removesuffix("/"))
            elif header.kind in _LINKS:
                self.links.append(
                    Finding(
                        "error",
                        printable(header.name),
                        "is a link or a device, and TorchServe writes an empty file in its place",
                        "Pack the file that it leads to.",
                    )
                )
            else:
                raise fault(header.name, f"is of a kind ({header.kind!r}) that programs read in several ways")
            if len(self.members) + len(self.folders) > MOST:
                raise fault("", f"has more than {MOST} members, the most that are read", "Pack fewer files.")
        if any(reader.take(BLOCK)):
            raise fault("", "has one block of zeros where two end a tar file")
        while rest := reader.some(CHUNK):
            if any(rest):
                raise fault("", "goes on behind its end")

    def _file(self, header: _Header, reader: _Reader) -> None:
        if header.name.endswith("/"):
            raise fault(header.name, "is a file with a folder's name")
        path = _inside(header.name)
        self.members.append(Member(path, header.size, header.size, name=header.name, place=reader.at))
        if header.size <= min(_KEPT, self._room):
            self.kept[path] = reader.take(header.size)
            self._room -= header.size
        else:
            reader.skip(header.size)
        _padding(reader, header.size)


def _inside(name: str) -> str:
    """Where TorchServe unpacks what has this name: it takes the first part off, where there is more than one."""
    root, slash, rest = name.partition("/")
    if root in ("", ".."):
        raise fault(
            name,
            "leads out of the archive's folder: unpacked, it would be written over other files",
            "Do not use this archive unless you know who made it.",
        )
    return rest if slash else root


def _padding(reader: _Reader, size: int) -> None:
    if any(reader.take(-size % BLOCK)):
        raise fault("", "has other bytes than zeros between two of its members")


def _next(reader: _Reader) -> _Header | None:
    """The next file's or folder's header, with the long name or the pax header in front of it; None at the end."""
    header = _header(reader)
    if header is None or header.kind not in (_PAX, _LONG):
        return header
    before, told = header, _record(header, reader)
    header = _header(reader)
    if header is None or header.kind in (_PAX, _LONG):
        raise fault(before.name, "is a long name or a pax header that no file follows")
    if before.kind == _PAX:
        header.name = told.get("path", header.name)
        header.size = int(told.get("size", header.size))
    else:
        header.name = told["path"]
    return header


def _header(reader: _Reader) -> _Header | None:
    """The next header, None if it is a block of zeros. Raises Fault unless every field has one meaning."""
    block = reader.take(BLOCK)
    if not any(block):
        return None
    label = block[:100].partition(b"\0")[0].decode("utf-8", "backslashreplace")
    kind, form = block[156:157], block[257:265]
    if not _OCTAL.fullmatch(block[148:156]) or _octal(block[148:156]) != sum(block) - sum(block[148:156]) + 8 * 32:
        raise fault(label, "has a header with a wrong checksum: some programs stop there, and TorchServe goes on")
    if form not in (_POSIX, _GNU):
        raise fault(label, "has a header that is neither POSIX's nor GNU tar's")
    prefix, rest = (block[345:500], block[500:]) if form == _POSIX else (b"", block[345:])
    # The length of a name, mode and size; who and where are not read, but TorchServe stops if they make no sense.
    numbers = (block[100:108], block[124:136], block[136:148])
    owners = (block[108:116], block[116:124])
    if (
        any(rest)
        or not all(_OCTAL.fullmatch(number) for number in numbers)
        or not all(_OCTAL.fullmatch(number) or number[0] == 0x80 for number in owners)
    ):
        raise fault(label, "has a header with a field that makes no sense")
    name, folders = _text(label, block[:100]), _text(label, prefix)
    return _Header(f"{folders}/{name}" if folders else name, kind, _octal(block[124:136]))


def _octal(field: bytes) -> int:
    return int(field.strip(b" \0") or b"0", 8)


def _text(label: str, field: bytes) -> str:
    """A text of a header. Java decodes it by the server's locale, so that only ASCII has one meaning."""
    text, _, rest = field.partition(b"\0")
    if any(rest) or not text.isascii():
        raise fault(
            label,
            "has a name that is not ASCII in its header, which TorchServe reads by its locale",
            "Make it in the pax format (tar --format=posix), or with torch-model-archiver.",
        )
    return text.decode()


def _record(header: _Header, reader: _Reader) -> dict[str, str]:
    """What a pax header says, or a long name as `path`."""
    if header.size > _LONGEST_RECORD:
        raise fault(header.name, f"has a name or a pax header of {header.size} bytes")
    data = reader.take(header.size)
    _padding(reader, header.size)
    if header.kind == _PAX:
        return _pax(header, data)
    if header.name != "././@LongLink" or not data.rstrip(b"\0"):
        raise fault(header.name, "is a long name that makes no sense")
    return {"path": _text(header.name, data)}


def _pax(header: _Header, data: bytes) -> dict[str, str]:
    """The records of a pax header: `LENGTH KEY=VALUE`, a line each."""
    found: dict[str, str] = {}
    while data:
        length, space, _ = data.partition(b" ")
        size = int(length) if re.fullmatch(rb"[1-9][0-9]{0,5}", length) else 0
        key, equals, value = data[len(length) + 1 : size].partition(b"=")
        try:
            name, text = key.decode(), value.decode().removesuffix("\n")
        except UnicodeDecodeError:
            raise fault(header.name, "is a pax header that is not UTF-8") from None
        if not space or not equals or size > len(data) or not value.endswith(b"\n"):
            raise fault(header.name, "is a pax header that makes no sense")
        if name not in _PAX_KEYS or name in found or not _PAX_KEYS[name].fullmatch(text):
            raise fault(header.name, f"is a pax header whose {printable(name)!r} programs read in several ways")
        found[name] = text
        data = data[size:]
    return found
