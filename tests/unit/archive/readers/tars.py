"""Compressed tar files written field by field, so that any field may lie (POSIX.1-2017, pax; RFC 1952)."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

from tests.unit.archive.readers.zips import MANIFEST, NAMES, spoiled

# Where a header's fields are, and how long.
FIELDS = {
    "name": (0, 100), "mode": (100, 8), "uid": (108, 8), "gid": (116, 8), "size": (124, 12), "mtime": (136, 12),
    "checksum": (148, 8), "kind": (156, 1), "link": (157, 100), "magic": (257, 8), "owner": (265, 32),
    "group": (297, 32), "major": (329, 8), "minor": (337, 8), "prefix": (345, 155), "rest": (500, 12),
}  # fmt: skip


@dataclass
class Made:
    """A header as it is written, and the bytes behind it. Without `checked` its checksum is left as it was."""

    fields: dict[str, bytes]
    data: bytes = b""
    padding: bytes | None = None
    checked: bool = True

    def written(self) -> bytes:
        block = bytearray(512)
        for name, (at, length) in FIELDS.items():
            block[at : at + length] = self.fields.get(name, b"")[:length].ljust(length, b"\0")
        if self.checked:
            block[148:156] = b" " * 8
            block[148:156] = b"%06o\0 " % sum(block)
        padding = bytes(-len(self.data) % 512) if self.padding is None else self.padding
        return bytes(block) + self.data + padding


def made(name: bytes, data: bytes, kind: bytes = b"0", *, gnu: bool = False) -> Made:
    """An honest member."""
    fields = {
        "name": name,
        "mode": b"0000644\0",
        "uid": b"0000000\0",
        "gid": b"0000000\0",
        "size": b"%011o\0" % len(data),
        "mtime": b"00000000000\0",
        "kind": kind,
        "magic": b"ustar  \0" if gnu else b"ustar\x0000",
    }
    return Made(fields, data)


def record(key: bytes, value: bytes) -> bytes:
    """A line of a pax header, whose length counts itself."""
    size = len(key) + len(value) + 3
    while len(b"%d" % size) + len(key) + len(value) + 3 != size:
        size = len(b"%d" % size) + len(key) + len(value) + 3
    return b"%d %s=%s\n" % (size, key, value)


@dataclass
class Tar:
    """A tar file's members, its end, and what gzip says of it."""

    members: list[Made]
    end: bytes = bytes(1024)
    flags: int = 0
    crc: int = 0  # added to the right one
    size: int = 0
    after: bytes = b""
    parts: list[int] = field(default_factory=list)  # where another gzip member begins

    def tar(self) -> bytes:
        return b"".join(one.written() for one in self.members) + self.end

    def written(self) -> bytes:
        data = self.tar()
        cuts = [0, *sorted(cut % len(data) for cut in self.parts), len(data)]
        pieces = [data[one:other] for one, other in pairwise(cuts)]
        return b"".join(self._gzip(piece) for piece in pieces) + self.after

    def _gzip(self, data: bytes) -> bytes:
        head = struct.pack("<4BIBB", 0x1F, 0x8B, 8, self.flags, 0, 0, 255)
        head += struct.pack("<H", 4) + b"abcd" if self.flags & 4 else b""
        head += b"name\0" if self.flags & 8 else b""
        head += b"said\0" if self.flags & 16 else b""
        head += struct.pack("<H", zlib.crc32(head) & 0xFFFF) if self.flags & 2 else b""
        packer = zlib.compressobj(6, zlib.DEFLATED, -15)
        tail = struct.pack("<II", (zlib.crc32(data) + self.crc) & 0xFFFFFFFF, (len(data) + self.size) & 0xFFFFFFFF)
        return head + packer.compress(data) + packer.flush() + tail


def sample(rng: random.Random) -> Tar:
    """An honest tar file of a few members of all kinds."""
    gnu = rng.random() < 0.4
    members = [made(b"m/MAR-INF/MANIFEST.json", MANIFEST, gnu=gnu)]
    names = [b"m/handler.py", b"m/config.json", b"m/a/b.txt", b"m/empty", b"m/model.bin", b"m/" + b"long/" * 30 + b"x"]
    for name in rng.sample(names, 4):
        data = b"" if name == b"m/empty" else rng.randbytes(rng.choice((3, 512, 700))) * rng.choice((1, 3))
        members += named(name, data, gnu=gnu) if len(name) > 100 or rng.random() < 0.2 else [made(name, data, gnu=gnu)]
    if rng.random() < 0.4:
        members.insert(0, made(b"m/", b"", b"5", gnu=gnu))
    return Tar(members, end=bytes(rng.choice((1024, 10240))), flags=rng.choice((0, 0, 2, 4, 8, 16, 30)))


def named(name: bytes, data: bytes, *, gnu: bool) -> list[Made]:
    """A member with its name in front of it."""
    if gnu:
        return [made(b"././@LongLink", name + b"\0", b"L", gnu=True), made(name[:100], data, gnu=True)]
    return [made(b"././@PaxHeader", record(b"path", name), b"x"), made(name[:100], data)]


_VALUES: dict[str, tuple[bytes, ...]] = {
    "size": (
        b"00000000000\0", b"00000000001\0", b"00000001000\0", b"77777777777\0", b"0000000000 1", b"         12\0",
        b"\x80" + bytes(10) + b"\7", b"\xff" * 12, b"0x0000000a0\0", b"0000000001", b"000000000010", b"12 34\0",
        b"\x0000000000010", b"-0000000001\0",
    ),
    "kind": tuple(bytes([one]) for one in b"\x00012345567LKxxgSDMNVA "),
    "magic": (b"ustar\x0000", b"ustar  \0", b"ustar\0\0\0", b"", b"ustar 00", b"ustar\x0011", b"USTAR\x0000"),
    "mode": (b"", b"644", b"0000644 ", b"999\0", b"\x80abcdefg", b"  644 \0"),
    "uid": (b"", b"\x80\0\0\0\0\0\1\0", b"xyz", b"7777777\0", b"\xff" * 8),
    "mtime": (b"", b"99999999999\0", b"\x80" + b"\0" * 11, b"14.5\0"),
    "prefix": (b"m", b"other", b"../..", b"x\0y", b"p" * 155, b"p" * 131, b"\xc3\xa9", bytes(131) + b"01234567 "),
    "rest": (b"tar\0", bytes(8) + b"tar\0", b"x"),
    "link": (b"handler.py", b"../../etc/passwd"),
    "checksum": (b"0000000\0", b"", b"xxxxxxx\0"),
}  # fmt: skip

_RECORDS = (
    (b"path", b"m/handler.py"), (b"path", b"../out"), (b"path", b"/m/handler.py"), (b"path", b"m/dir/"),
    (b"path", b"m/\xc3\xa9.txt"), (b"path", b"\xff"), (b"path", b""), (b"path", b"m/x\0y"), (b"path", b"m/a\nb"),
    (b"size", b"3"), (b"size", b"0"), (b"size", b"512"), (b"size", b"-1"), (b"size", b" 3"), (b"size", b"1e1"),
    (b"mtime", b"1.5"), (b"mtime", b"now"), (b"uid", b"7"), (b"uid", b"x"), (b"GNU.sparse.size", b"9"),
    (b"GNU.sparse.major", b"1"), (b"GNU.sparse.name", b"m/handler.py"), (b"SCHILY.filetype", b"sparse"),
    (b"SCHILY.realsize", b"99"), (b"hdrcharset", b"BINARY"), (b"charset", b"ISO-IR 8859 1"), (b"comment", b"x"),
    (b"linkpath", b"x"), (b"SCHILY.xattr.user.a", b"b"), (b"uname", b"\xc3\xa9"),
)  # fmt: skip


def _field(rng: random.Random, archive: Tar) -> None:
    one = rng.choice(archive.members)
    name = rng.choice((*_VALUES, "name", "name", "name", "size", "kind"))
    if name == "name":
        raw = rng.choice(NAMES)
        now = one.fields.get("name", b"")
        one.fields["name"] = rng.choice((raw, b"m/" + raw, b"other/" + raw, b"./" + raw, now + b"\0x"))
    else:
        one.fields[name] = rng.choice(_VALUES[name])
    if name == "checksum" or rng.random() < 0.1:
        one.fields.setdefault("checksum", rng.choice((b"0000000\0", b"")))
        one.checked = False


def _pax(rng: random.Random, archive: Tar) -> None:
    at = rng.randrange(len(archive.members) + 1)
    data = b"".join(record(*rng.choice(_RECORDS)) for _ in range(rng.choice((1, 1, 1, 2, 3))))
    if rng.random() < 0.2:
        data = rng.choice((data + b"\n", data[:-1], b"0" + data, b"99 path=x\n", data + b"junk", b"9 =x\n", bytes(20)))
    name = rng.choice((b"././@PaxHeader", b"m/PaxHeaders/x", b"x/"))
    archive.members.insert(at, made(name, data, rng.choice((b"x", b"x", b"x", b"g", b"X"))))


def _long(rng: random.Random, archive: Tar) -> None:
    at = rng.randrange(len(archive.members) + 1)
    name = rng.choice(
        (b"m/handler.py", b"m/new.py\0", b"m/new.py", b"", b"m/a\0b\0", b"../out\0", b"m/\xc3\xa9\0", b"m/d/\0")
    )
    link = rng.choice((b"././@LongLink", b"././@LongLink", b"x/", b"m/x"))
    archive.members.insert(at, made(link, name, rng.choice((b"L", b"L", b"L", b"K")), gnu=rng.random() < 0.8))


def _members(rng: random.Random, archive: Tar) -> None:
    at = rng.randrange(len(archive.members))
    one = archive.members[at]
    what = rng.choice(("twice", "removed", "swapped", "other", "clash", "padding", "data", "zeros", "folder"))
    if what == "twice":
        archive.members.insert(rng.randrange(at, len(archive.members)), made(one.fields.get("name", b""), b"other"))
    elif what == "removed":
        del archive.members[at]
    elif what == "swapped":
        rng.shuffle(archive.members)
    elif what == "other":
        archive.members.append(made(rng.choice((b"other/new.py", b"root.py", b"m/sub/new.py")), b"x = 1"))
    elif what == "clash":
        archive.members.append(made(rng.choice((b"m/handler.py/x", b"m/a", b"m", b"m/a/")), b"x"))
    elif what == "padding":
        one.padding = rng.choice((b"", b"x" * (-len(one.data) % 512), bytes(512)))
    elif what == "data":
        one.data += rng.randbytes(rng.choice((1, 512)))
    elif what == "folder":
        size = rng.choice((b"", b"x" * 5, bytes(512)))
        archive.members.insert(at, made(rng.choice((b"m/d/", b"m/d", b"d", b"./")), size, b"5", gnu=rng.random() < 0.5))
    else:
        archive.members.insert(at, Made({}, b"", checked=False))


def _end(rng: random.Random, archive: Tar) -> None:
    hidden = made(b"m/handler.py", b"print('hidden')").written()
    archive.end = rng.choice(
        (
            b"",
            bytes(512),
            bytes(512) + hidden + bytes(1024),
            bytes(1024) + hidden,
            bytes(1000),
            bytes(1536),
            b"x" * 1024,
        )
    )


def _gzip(rng: random.Random, archive: Tar) -> None:
    what = rng.choice(("parts", "crc", "size", "flags", "after", "second"))
    if what == "parts":
        archive.parts = [rng.randrange(1 << 14) for _ in range(rng.choice((1, 2)))]
    elif what == "flags":
        archive.flags = rng.randrange(256)
    elif what == "after":
        archive.after = rng.choice((b"\0", bytes(512), rng.randbytes(9), b"\x1f\x8b"))
    elif what == "second":
        archive.after = Tar([made(b"m/handler.py", b"print('second')")]).written()
    else:
        setattr(archive, what, rng.choice((1, 512, 1 << 31)))


CHANGES: tuple[Callable[[random.Random, Tar], None], ...] = (
    _field, _field, _field, _field, _pax, _pax, _long, _members, _members, _end, _gzip,
)  # fmt: skip


def changed(rng: random.Random) -> bytes:
    """A compressed tar file with a few changes."""
    archive = sample(rng)
    for _ in range(rng.choice((0, 1, 1, 1, 1, 2, 2, 3))):
        if archive.members:
            rng.choice(CHANGES)(rng, archive)
    if rng.random() < 0.1:
        # Spoiled before it is compressed, so that gzip says nothing of it.
        data = spoiled(random.Random(rng.random()), archive.tar())
        archive.members, archive.end = [], data or bytes(1024)
    return spoiled(rng, archive.written())
