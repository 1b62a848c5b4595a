"""Zip files written field by field, so that any field may lie (APPNOTE.TXT 4.3 to 4.5)."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace

MANIFEST = b'{"model": {"modelName": "m", "handler": "handler.py"}}'
FULL = 0xFFFFFFFF


def deflated(data: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush()


@dataclass
class Header:
    """What is said of a member, in one of the two places."""

    name: bytes
    flags: int
    method: int
    crc: int
    stored: int
    size: int
    extra: bytes = b""


@dataclass
class Made:
    """A member as it is written: its two headers (None leaves one out), its packed bytes, and what stands behind."""

    front: Header | None
    listed: Header | None
    packed: bytes
    behind: bytes = b""
    comment: bytes = b""
    mode: int = 0o100644
    moved: int = 0  # added to its place in the directory


def made(name: str, data: bytes, method: int = 0, *, behind: bool = False) -> Made:
    """An honest member, with sizes `behind` it if that is asked for."""
    packed = deflated(data) if method else data
    raw = name.encode()
    header = Header(raw, (0 if raw.isascii() else 0x800) | (8 if behind else 0), method, zlib.crc32(data), 0, 0)
    header.stored, header.size = len(packed), len(data)
    descriptor = b"PK\7\b" + struct.pack("<III", header.crc, header.stored, header.size) if behind else b""
    front = replace(header, crc=0, stored=0, size=0) if behind else replace(header)
    return Made(front, header, packed, descriptor)


@dataclass
class Zip:
    """A zip file's members and its end."""

    members: list[Made]
    order: list[int] = field(default_factory=list)  # of the directory, if it is another one
    before: bytes = b""
    gap: bytes = b""  # between the last member and the directory
    middle: bytes = b""  # between the directory and the end
    after: bytes = b""
    comment: bytes = b""
    end: dict[str, int] = field(default_factory=dict)  # what the end says, where that is not so
    far: bool = False  # zip64's end records

    def written(self) -> bytes:
        out, places = bytearray(self.before), []
        for one in self.members:
            places.append(len(out) + one.moved)
            out += local(one.front) if one.front else b""
            out += one.packed + one.behind
        out += self.gap
        start = len(out)
        listed = [(one, place) for one, place in zip(self.members, places, strict=True) if one.listed]
        if self.order:
            listed = [listed[number % len(listed)] for number in self.order]
        for one, place in listed:
            assert one.listed
            out += central(one.listed, place, one)
        length = len(out) - start
        told = {"count": len(listed), "length": length, "start": start, **self.end}
        out += self.middle
        if self.far:
            place = len(out)
            out += b"PK\6\6" + struct.pack("<QHHIIQQ", 44, 45, 45, 0, 0, told["count"], told["count"])
            out += struct.pack("<QQ", told["length"], told["start"])
            out += b"PK\6\7" + struct.pack("<IQI", 0, place, 1)
        near = (0xFFFF, 0xFFFF, FULL, FULL) if self.far else (told["count"],) * 2 + (told["length"], told["start"])
        out += b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, *near, len(self.comment)) + self.comment
        return bytes(out) + self.after


def local(header: Header) -> bytes:
    fixed = (20, header.flags, header.method, 0, 33, header.crc, header.stored, header.size)
    lengths = (len(header.name), len(header.extra))
    return b"PK\3\4" + struct.pack("<HHHHHIIIHH", *fixed, *lengths) + header.name + header.extra


def central(header: Header, place: int, one: Made) -> bytes:
    fixed = (0x31E, 20, header.flags, header.method, 0, 33, header.crc, header.stored, header.size)
    lengths = (len(header.name), len(header.extra), len(one.comment))
    rest = struct.pack("<HHII", 0, 0, one.mode << 16, place)
    return (
        b"PK\1\2"
        + struct.pack("<HHHHHHIII", *fixed)
        + struct.pack("<HHH", *lengths)
        + rest
        + header.name
        + header.extra
        + one.comment
    )


def sample(rng: random.Random) -> Zip:
    """An honest zip file of a few members of all kinds."""
    kinds = [(0, False), (8, False), (8, True)]
    members = [made("MAR-INF/MANIFEST.json", MANIFEST)]
    for name in rng.sample(["handler.py", "config.json", "a/b/c.txt", "e\u0301.txt", "empty", "model.bin"], 4):
        method, behind = rng.choice(kinds)
        data = b"" if name == "empty" else rng.randbytes(rng.choice((3, 200))) * rng.choice((1, 50))
        members.append(made(name, data, method, behind=behind))
    if rng.random() < 0.3:
        members.insert(rng.randrange(len(members) + 1), made("a/", b"", rng.choice((0, 8))))
    return Zip(members, far=rng.random() < 0.1, comment=rng.choice((b"", b"", b"made by hand")))


NAMES = (
    b"handler.py", b"HANDLER.py", b"./handler.py", b"a/../handler.py", b"../out.py", b"/etc/out.py", b"a//b.py",
    b"handler.py/", b"a", b"a/", b"", b"..", b".", b"a\\b.py", b"x\0.py", b"C:/x.py", b"\xff\xfe.py", b"\xc3\xa9.txt",
    b"e\xcc\x81.txt", b"\xed\xa0\x80.txt", b"n" * 300, b"d/" * 700 + b"x", b"handler.py ", b"MAR-INF/MANIFEST.json",
    b"\x1b[2J.py", b"caf\x82.py", b"\xf0\x9f\x98\x80.txt",
)  # fmt: skip


def zip64(*values: int) -> bytes:
    return struct.pack(f"<HH{len(values)}Q", 1, 8 * len(values), *values)


def _extra(rng: random.Random, header: Header) -> bytes:
    other = b"\1" + struct.pack("<I", zlib.crc32(header.name)) + rng.choice((header.name, b"handler.py"))
    return rng.choice(
        (
            zip64(header.size, header.stored),
            zip64(header.size, header.stored) * 2,
            zip64(1, 1),
            zip64(),
            struct.pack("<HHBI", 0x5455, 5, 1, 0),
            struct.pack("<HH", 0x5455, 0),
            struct.pack("<HHB", 0x5455, 1, 7),
            struct.pack("<HH", 0x7075, len(other)) + other,
            struct.pack("<HH", 0x000A, 32) + rng.randbytes(32),
            rng.randbytes(rng.randrange(1, 30)),
            b"\0" * rng.randrange(1, 6),
            struct.pack("<HH", 0xCAFE, 0),
        )
    )


def _value(rng: random.Random, now: int) -> int:
    return rng.choice((0, 1, FULL, now + 1, max(0, now - 1), now ^ 1 << rng.randrange(16), rng.randrange(1 << 32)))


def _field(rng: random.Random, header: Header) -> None:
    what = rng.choice(("name", "flags", "method", "crc", "stored", "size", "extra", "wide"))
    if what == "name":
        header.name = rng.choice((*NAMES, header.name[:-1], header.name + b"x"))
    elif what == "flags":
        header.flags ^= rng.choice((1, 2, 4, 8, 8, 8, 0x20, 0x40, 0x800, 0x800, 0x2000, 0x10, 0x8000))
    elif what == "method":
        header.method = rng.choice((0, 8, 8, 9, 12, 14, 99))
    elif what == "extra":
        header.extra = _extra(rng, header)
    elif what == "wide":
        header.extra = zip64(header.size, header.stored)
        header.size = header.stored = FULL
    else:
        setattr(header, what, _value(rng, getattr(header, what)) & FULL)


def _front(rng: random.Random, archive: Zip) -> None:
    if header := rng.choice(archive.members).front:
        _field(rng, header)


def _listed(rng: random.Random, archive: Zip) -> None:
    if header := rng.choice(archive.members).listed:
        _field(rng, header)


def _both(rng: random.Random, archive: Zip) -> None:
    one, seed = rng.choice(archive.members), rng.random()
    for header in (one.front, one.listed):
        if header:
            _field(random.Random(seed), header)


def _renamed(rng: random.Random, archive: Zip) -> None:
    one, name = rng.choice(archive.members), rng.choice(NAMES)
    for header in (one.front, one.listed):
        if header:
            header.name = name


def _behind(rng: random.Random, archive: Zip) -> None:
    one = rng.choice(archive.members)
    told = one.listed or one.front
    assert told
    crc, stored, size = (rng.choice((value, value, value, value ^ 1)) for value in (told.crc, told.stored, told.size))
    one.behind = rng.choice((b"", b"PK\7\b")) + struct.pack(rng.choice(("<III", "<III", "<IQQ")), crc, stored, size)


def _hidden(rng: random.Random, archive: Zip) -> None:
    """A member in another one's packed bytes, behind the end of its own stream."""
    one, hidden = rng.choice(archive.members), made("handler.py", b"print('hidden')", rng.choice((0, 8)))
    assert hidden.front
    area = local(hidden.front) + hidden.packed
    if one.listed and rng.random() < 0.7:
        told = struct.pack("<III", one.listed.crc, len(one.packed), one.listed.size)
        area = rng.choice((b"", b"PK\7\b" + told, told)) + area
        for header in (one.listed, *([one.front] if one.front and rng.random() < 0.5 else [])):
            header.stored += len(area)
            header.size += len(area) if header.method == 0 and rng.random() < 0.5 else 0
        if header.method == 0 and rng.random() < 0.5:
            one.listed.crc = zlib.crc32(one.packed + area)
        if rng.random() < 0.3 and one.front:
            one.front.flags |= 8
            one.listed.flags |= rng.choice((0, 8))
    one.packed += area


def _packed(rng: random.Random, archive: Zip) -> None:
    one = rng.choice(archive.members)
    if one.packed:
        at = rng.randrange(len(one.packed))
        one.packed = rng.choice(
            (
                one.packed[:at],
                one.packed + rng.randbytes(3),
                one.packed[:at] + bytes([one.packed[at] ^ 1]) + one.packed[at + 1 :],
                b"\0\0\0\xff\xff" + one.packed,  # an empty deflate block in front
            )
        )


def _members(rng: random.Random, archive: Zip) -> None:
    at = rng.randrange(len(archive.members))
    one = archive.members[at]
    what = rng.choice(("twice", "unlisted", "missing", "moved", "swapped", "order", "link", "clash"))
    if what == "twice":
        other = made((one.listed or one.front or Header(b"x", 0, 0, 0, 0, 0)).name.decode("latin-1"), b"other")
        archive.members.insert(rng.randrange(len(archive.members) + 1), other)
    elif what == "unlisted":
        one.listed = None
    elif what == "missing":
        one.front, one.packed, one.behind = None, b"", b""
    elif what == "moved":
        one.moved = rng.choice((1, -1, 30, rng.randrange(-200, 200)))
    elif what == "swapped":
        rng.shuffle(archive.members)
    elif what == "order":
        archive.order = [rng.randrange(8) for _ in archive.members]
    elif what == "link":
        one.mode = 0o120777
    else:
        archive.members.append(made(rng.choice(("handler.py/x", "a", "a/b", "config.json/")), b""))


def _end(rng: random.Random, archive: Zip) -> None:
    what = rng.choice(("count", "length", "start", "comment", "after", "before", "gap", "middle", "far", "second"))
    if what in ("count", "length", "start"):
        archive.end[what] = rng.choice((0, 1, 2, rng.randrange(300), FULL >> 16))
    elif what == "comment":
        archive.comment = rng.choice((b"x", b"PK\5\6" + bytes(18), b"PK\3\4" * 3, rng.randbytes(50)))
    elif what == "far":
        archive.far = not archive.far
    elif what == "second":
        other = Zip([made("handler.py", b"print('second')")])
        archive.after = other.written()
    else:
        setattr(archive, what, rng.choice((b"\0", b"#!/bin/sh\n", rng.randbytes(20), b"PK\3\4" + bytes(26))))


CHANGES: tuple[Callable[[random.Random, Zip], None], ...] = (
    _front, _front, _listed, _listed, _both, _both, _renamed, _renamed, _behind, _behind, _hidden, _packed, _members,
    _members, _end,
)  # fmt: skip


def changed(rng: random.Random) -> bytes:
    """A zip file with a few changes."""
    archive = sample(rng)
    for _ in range(rng.choice((0, 1, 1, 1, 1, 2, 2, 3))):
        rng.choice(CHANGES)(rng, archive)
    for one in archive.members:
        for header in (one.front, one.listed):
            if header:
                header.stored, header.size = header.stored & FULL, header.size & FULL
                header.flags &= 0xFFFF
        one.moved = one.moved if one.moved >= 0 or one is not archive.members[0] else 0
    try:
        data = archive.written()
    except struct.error:
        return b""
    return spoiled(rng, data)


def spoiled(rng: random.Random, data: bytes) -> bytes:
    """Now and then with other bytes, fewer or more."""
    if rng.random() < 0.15 and data:
        at = rng.randrange(len(data))
        data = rng.choice(
            (
                data[:at],
                data + rng.randbytes(5),
                data[:at] + rng.randbytes(1) + data[at + 1 :],
                data[:at] + rng.randbytes(2) + data[at:],
                data[:at] + data[at + 1 :],
                data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :],
            )
        )
    return data
