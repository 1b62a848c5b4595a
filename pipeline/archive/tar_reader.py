"""The index of a compressed tar file, read as commons-compress reads it: header by header, 512 bytes each.
Their fields are those of POSIX.1-2017 (pax); GNU tar's manual has the long names.

Programs disagree on unusual files: Python's tarfile stops at a malformed header and commons-compress continues;
Python's gzip reads a second member and Java does not. So everything unusual is refused.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ..files.opening import opened
from ..files.tree import CHUNK
from ..text import printable
from .findings import SHOWN, Finding
from .members import MOST, Damage, Fault, Index, Member, as_file, check_names, fault, inflated, room, too_much

BLOCK = 512
_POSIX, _GNU = b"ustar\x0000", b"ustar  \x00"
_FILES, _FOLDER, _PAX, _LONG = (b"0", b"\0"), b"5", b"x", b"L"
_LINKS = (b"1", b"2", b"3", b"4", b"6")  # links, devices and pipes
_LONGEST_RECORD = 1 << 16  # bytes of a pax header, or of a long name
_LARGEST_CONTENT, _ALL_CONTENTS = 1 << 20, 16 << 20  # bytes of a file whose contents are kept, and of all of them

_OCTAL = re.compile(rb" *[0-7]+[ \0]+|\0+")
_NUMBER = re.compile(r"[0-9]{1,18}")
_TIME = re.compile(r"-?[0-9]{1,12}(\.[0-9]{1,12})?")

# Allowed keys of a pax header: with any other, some programs read the file differently.
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
    """The unpacked bytes of a gzip file of one member, in chunks. Raises Damage if it is truncated or does not match
    its CRC-32 and size, Fault if data follows its end, or if it unpacks to more than an archive of its size may."""
    unpacker = zlib.decompressobj(16 + zlib.MAX_WBITS)
    with opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        left = room(size)
        while not unpacker.eof:
            packed = file.read(CHUNK // 4)
            if not packed:
                raise Damage("it is cut short")
            for chunk in inflated(unpacker, packed):
                left -= len(chunk)
                if left < 0:
                    raise too_much(size)
                yield chunk
        if unpacker.unused_data or file.read(1):
            raise fault("", "has data behind its gzip member: TorchServe stops there, and other programs read on")


def streams(path: Path, members: Iterable[Member]) -> Iterator[tuple[Member, IO[bytes]]]:
    """The bytes of these members, in the order of the index; read each before the next."""
    reader = _Reader(path)
    for member in members:
        reader.skip(member.place - reader.at)
        yield member, as_file(map(bytes, reader.pieces(member.size)), member.size)


class _Reader:
    """The unpacked bytes, read piece by piece."""

    def __init__(self, path: Path) -> None:
        self._chunks = unpacked(path)
        self._rest = memoryview(b"")
        self.at = 0

    def some(self, most: int) -> memoryview:
        """At most `most` bytes; empty at the end."""
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                break
            self._rest = memoryview(chunk)
        piece, self._rest = self._rest[:most], self._rest[most:]
        self.at += len(piece)
        return piece

    def pieces(self, size: int) -> Iterator[memoryview]:
        """Exactly `size` bytes. Raises Damage if there are fewer."""
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
    """A header's name, type flag and size in bytes."""

    name: str
    kind: bytes
    size: int


def index(path: Path, last: str) -> Index:
    """The members of a compressed tar file. Raises Fault unless it can be read in one way only, and Damage if it cannot
    be read up to the file `last`."""
    listing = _Listing()
    try:
        listing.read(_Reader(path))
    except Damage as damage:
        if not any(member.path == last for member in listing.members):
            raise
        raise fault("", f"is damaged: {damage}", "Build it again, or copy it again.") from None
    if listing.links:
        raise Fault(*listing.links[:SHOWN])
    check_names([*((m.path, False) for m in listing.members), *((f, True) for f in listing.folders if f)])
    return Index(tuple(listing.members), tuple(folder for folder in listing.folders if folder), listing.contents)


class _Listing:
    """Members, folders and links that were read so far."""

    def __init__(self) -> None:
        self.members: list[Member] = []
        self.folders: list[str] = []
        self.contents: dict[str, bytes] = {}
        self.links: list[Finding] = []
        self._room = _ALL_CONTENTS

    def read(self, reader: _Reader) -> None:
        while (header := _next(reader)) is not None:
            if header.kind in _FILES:
                self._file(header, reader)
            elif header.kind == _FOLDER:
                if header.size or not header.name.endswith("/"):
                    raise fault(header.name, "is a folder whose header is malformed")
                self.folders.append(_inside(header.name).removesuffix("/"))
            elif header.kind in _LINKS:
                self.links.append(
                    Finding(
                        "error",
                        printable(header.name),
                        "is a link or a device: TorchServe writes an empty file in its place",
                        "Pack its target instead.",
                    )
                )
            else:
                raise fault(header.name, f"is of a kind ({header.kind!r}) that programs read in several ways")
            if len(self.members) + len(self.folders) > MOST:
                raise fault("", f"has more than {MOST} members, the most that are read", "Pack fewer files.")
        if any(reader.take(BLOCK)):
            raise fault("", "ends with one block of zeros; a tar file ends with two")
        while rest := reader.some(CHUNK):
            if any(rest):
                raise fault("", "has data behind its end")

    def _file(self, header: _Header, reader: _Reader) -> None:
        if header.name.endswith("/"):
            raise fault(header.name, "is a file with a folder's name")
        path = _inside(header.name)
        self.members.append(Member(path, header.size, header.size, name=header.name, place=reader.at))
        if header.size <= min(_LARGEST_CONTENT, self._room):
            self.contents[path] = reader.take(header.size)
            self._room -= header.size
        else:
            reader.skip(header.size)
        _padding(reader, header.size)


def _inside(name: str) -> str:
    """The path that TorchServe unpacks a name to: it drops the first part of several."""
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
        raise fault("", "has padding between two members that is not zero")


def _next(reader: _Reader) -> _Header | None:
    """The header of the next file or folder, with its pax header or long name applied; None at the end."""
    header = _header(reader)
    if header is None or header.kind not in (_PAX, _LONG):
        return header
    before, fields = header, _record(header, reader)
    header = _header(reader)
    if header is None or header.kind in (_PAX, _LONG):
        raise fault(before.name, "is a long name or a pax header without a file behind it")
    if before.kind == _PAX:
        header.name = fields.get("path", header.name)
        header.size = int(fields.get("size", header.size))
    else:
        header.name = fields["path"]
    return header


def _header(reader: _Reader) -> _Header | None:
    """The next header, None if it is a block of zeros. Raises Fault unless every field has one meaning."""
    block = reader.take(BLOCK)
    if not any(block):
        return None
    label = block[:100].partition(b"\0")[0].decode("utf-8", "backslashreplace")
    kind, form = block[156:157], block[257:265]
    if not _OCTAL.fullmatch(block[148:156]) or _octal(block[148:156]) != sum(block) - sum(block[148:156]) + 8 * 32:
        raise fault(label, "has a header with a wrong checksum: some programs stop there, and TorchServe reads on")
    if form not in (_POSIX, _GNU):
        raise fault(label, "has a header that is neither POSIX's nor GNU tar's")
    prefix, rest = (block[345:500], block[500:]) if form == _POSIX else (b"", block[345:])
    # Mode, size and mtime; owner and group are not used, but TorchServe stops if they are malformed.
    numbers = (block[100:108], block[124:136], block[136:148])
    owners = (block[108:116], block[116:124])
    if (
        any(rest)
        or not all(_OCTAL.fullmatch(number) for number in numbers)
        or not all(_OCTAL.fullmatch(number) or number[0] == 0x80 for number in owners)
    ):
        raise fault(label, "has a header with a malformed field")
    name, folders = _text(label, block[:100]), _text(label, prefix)
    return _Header(f"{folders}/{name}" if folders else name, kind, _octal(block[124:136]))


def _octal(field: bytes) -> int:
    return int(field.strip(b" \0") or b"0", 8)


def _text(label: str, field: bytes) -> str:
    """A text field of a header. Java decodes it by the server's locale, so that only ASCII is unambiguous."""
    text, _, rest = field.partition(b"\0")
    if any(rest) or not text.isascii():
        raise fault(
            label,
            "has a name in its header that is not ASCII: TorchServe decodes it by the server's locale",
            "Pack it in the pax format (tar --format=posix), or with torch-model-archiver.",
        )
    return text.decode()


def _record(header: _Header, reader: _Reader) -> dict[str, str]:
    """The fields of a pax header; for a long name, only `path`."""
    if header.size > _LONGEST_RECORD:
        raise fault(header.name, f"has a name or a pax header of {header.size} bytes")
    data = reader.take(header.size)
    _padding(reader, header.size)
    if header.kind == _PAX:
        return _pax(header, data)
    if header.name != "././@LongLink" or not data.rstrip(b"\0"):
        raise fault(header.name, "is a malformed long name")
    return {"path": _text(header.name, data)}


def _pax(header: _Header, data: bytes) -> dict[str, str]:
    """The records of a pax header: `LENGTH KEY=VALUE`, a line each."""
    fields: dict[str, str] = {}
    while data:
        length, space, _ = data.partition(b" ")
        size = int(length) if re.fullmatch(rb"[1-9][0-9]{0,5}", length) else 0
        key, equals, value = data[len(length) + 1 : size].partition(b"=")
        try:
            name, text = key.decode(), value.decode().removesuffix("\n")
        except UnicodeDecodeError:
            raise fault(header.name, "is a pax header that is not UTF-8") from None
        if not space or not equals or size > len(data) or not value.endswith(b"\n"):
            raise fault(header.name, "is a malformed pax header")
        if name not in _PAX_KEYS or name in fields or not _PAX_KEYS[name].fullmatch(text):
            raise fault(header.name, f"is a pax header whose {printable(name)!r} programs read in several ways")
        fields[name] = text
        data = data[size:]
    return fields
