"""The index of a zip file, read from the front as java.util.zip.ZipInputStream reads it, and held against its
directory.

TorchServe unpacks what it meets in front and never looks at the directory at the end; most other programs look there
first. So the two have to say the same of every member, and nothing may stand outside of what they list. Records and
fields are those of APPNOTE.TXT 4.3 to 4.5.
"""

from __future__ import annotations

import stat
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ..text import printable
from .members import DEFLATED, MOST, STORED, Damage, Fault, Index, Member, check_names, fault, unpacked

LOCAL = b"PK\3\4"
_CENTRAL, _DESCRIPTOR = b"PK\1\2", b"PK\7\b"
END = b"PK\5\6"
_FAR_END, _LOCATOR = b"PK\6\6", b"PK\6\7"
_FULL = 0xFFFFFFFF  # in four bytes: the number is in the zip64 extra field

_ENCRYPTED, _BEHIND, _UTF8 = 1, 8, 0x800
_KNOWN = _BEHIND | _UTF8 | 6  # 6: how hard the deflater tried

_LONGEST_COMMENT = 0xFFFF
_LONGEST_EXTRA = 0x7FFF  # bytes; newer Javas refuse a name and extra field of more than 64 KiB together
_ZIP64, _TIMES, _UNICODE_PATH = 1, 0x5455, 0x7075

_HIDES = "TorchServe reads from the front and may unpack what other programs do not see"


@dataclass(frozen=True)
class _Entry:
    """A member, as the directory has it."""

    raw: bytes
    flags: int
    method: int
    crc32: int
    stored: int
    size: int
    place: int
    attributes: int

    @property
    def label(self) -> str:
        """Its name for a message, whatever the bytes are."""
        return self.raw.decode("utf-8", "backslashreplace")


def index(path: Path) -> Index:
    """The members of a zip file. Raises Fault unless it can be read in one way only, Damage if it is cut short."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        start, entries = _directory(file, size)
        members: list[Member] = []
        folders: list[Member] = []
        at = 0
        for entry in entries:
            if entry.place != at:
                raise fault(entry.label, f"does not follow the member before it: {_HIDES}")
            name = _name(entry)
            begin = _local(file, entry, at, start)
            at = begin + entry.stored
            folder = name.endswith("/")
            if folder and entry.size:
                raise fault(entry.label, f"is a folder with {entry.size} bytes in it")
            member = Member(
                path=name.removesuffix("/"),
                size=entry.size,
                stored=entry.stored,
                name=name,
                place=begin,
                method=entry.method,
                crc32=entry.crc32,
                link=stat.S_ISLNK(entry.attributes >> 16),
            )
            _check_bytes(file, member, entry)
            at += _behind(file, entry, at) if entry.flags & _BEHIND else 0
            (folders if folder else members).append(member)
        if at != start:
            raise fault(
                "",
                f"holds {start - at} bytes behind its last member that its directory does not list, which TorchServe "
                "may unpack",
            )
    check_names([*((member.path, False) for member in members), *((folder.path, True) for folder in folders)])
    return Index(tuple(members), tuple(folder.path for folder in folders))


def has_end(file: IO[bytes]) -> bool:
    """Whether a file ends like a zip file."""
    try:
        _end(file, file.seek(0, 2))
    except Damage:
        return False
    except Fault:
        return True
    return True


def _directory(file: IO[bytes], size: int) -> tuple[int, list[_Entry]]:
    """Where the directory begins, and its entries in order. Raises Damage if the zip file has no end."""
    end, count, length, start = _end(file, size)
    if start + length != end:
        raise fault("", f"has a directory that does not follow its last member where its end says it does: {_HIDES}")
    file.seek(0)
    if count and file.read(4) != LOCAL:
        raise fault("", f"begins with bytes that are no member's, so that its first one does not follow: {_HIDES}")
    if count > MOST:
        raise fault("", f"has {count} members, and {MOST} are the most that are read", "Pack fewer files.")
    file.seek(start)
    data = file.read(length)
    at, entries = 0, []
    for _ in range(count):
        entry, at = _central(data, at)
        entries.append(entry)
    if at != length:
        raise fault("", f"has a directory of {length} bytes, of which {length - at} list no member")
    return start, entries


def _end(file: IO[bytes], size: int) -> tuple[int, int, int, int]:
    """Where the directory has to end, and what the end record says: count of members, length and place of it."""
    file.seek(max(0, size - 22 - _LONGEST_COMMENT - 20))
    tail = file.read()
    found = []
    at = tail.find(END)
    while at >= 0:
        if len(tail) - at >= 22 and at + 22 + int.from_bytes(tail[at + 20 : at + 22], "little") == len(tail):
            found.append(at)
        at = tail.find(END, at + 1)
    if not found:
        raise Damage("it has no end record")
    # One in the comment need not fit to be taken: Python's zipfile goes by the last one's first four bytes.
    if len(found) > 1 or tail.rfind(END) > found[0]:
        raise fault("", "has two end records, and programs differ in which one they take")
    at = found[0]
    disk, start_disk, here, count, length, start, _ = struct.unpack_from("<4HIIH", tail, at + 4)
    end = size - len(tail) + at
    if at >= 20 and tail[at - 20 : at - 16] == _LOCATOR:
        return _far_end(file, end - 20, tail[at - 20 : at], (here, count, length, start))
    if (disk, start_disk) != (0, 0) or here != count:
        raise fault("", "is one of several parts of a zip file")
    return end, count, length, start


def _far_end(file: IO[bytes], end: int, locator: bytes, near: tuple[int, ...]) -> tuple[int, int, int, int]:
    """The same of zip64's records, which stand in front of the end record and have to agree with it."""
    disk, place, disks = struct.unpack_from("<IQI", locator, 4)
    if (disk, disks) != (0, 1) or place + 56 != end:
        raise fault("", "has a zip64 end record that is not where it should be")
    file.seek(place)
    record = file.read(56)
    if record[:4] != _FAR_END:
        raise fault("", "has no zip64 end record where its end says there is one")
    length_of_record, _, _, disk, start_disk, here, count, length, start = struct.unpack_from("<QHHIIQQQQ", record, 4)
    if length_of_record != 44 or (disk, start_disk) != (0, 0) or here != count:
        raise fault("", "has a zip64 end record that makes no sense")
    for told, wide, full in zip(near, (count, count, length, start), (0xFFFF, 0xFFFF, _FULL, _FULL), strict=True):
        if told not in (wide, full):
            raise fault("", "has two end records that say different things of its directory")
    return place, count, length, start


def _central(data: bytes, at: int) -> tuple[_Entry, int]:
    """The directory's entry at a place, and the place behind it."""
    if data[at : at + 4] != _CENTRAL or len(data) - at < 46:
        raise fault("", "has a directory with fewer members than its end says")
    flags, method, _, crc, stored, size, *lengths, disk, _, attributes, place = struct.unpack_from(
        "<HHIIII3HHHII", data, at + 8
    )
    names, extras, comments = lengths
    at += 46
    raw, extra = data[at : at + names], data[at + names : at + names + extras]
    at += names + extras + comments
    if at > len(data) or disk:
        raise fault("", "has a directory that is cut short")
    label = raw.decode("utf-8", "backslashreplace")
    wide = _extras(label, raw, extra).get(_ZIP64, b"")
    wanted = [value == _FULL for value in (size, stored, place)]
    if len(wide) != 8 * sum(wanted):
        raise fault(label, "has a zip64 extra field in the directory that does not fit its sizes")
    values = iter(struct.unpack(f"<{len(wide) // 8}Q", wide))
    size, stored, place = (
        next(values) if far else near for near, far in zip((size, stored, place), wanted, strict=True)
    )
    return _Entry(raw, flags, method, crc, stored, size, place, attributes), at


def _extras(label: str, raw: bytes, data: bytes) -> dict[int, bytes]:
    """The extra fields by kind. Raises Fault if they do not fill their place, or give the member another name."""
    found: dict[int, bytes] = {}
    at = 0
    while at < len(data):
        kind, length = struct.unpack_from("<HH", data, at) if len(data) - at >= 4 else (0, len(data))
        content = data[at + 4 : at + 4 + length]
        if len(content) != length or kind in found or (kind == _TIMES and not content):
            raise fault(label, "has an extra field that makes no sense")
        found[kind] = content
        at += 4 + length
    if len(data) > _LONGEST_EXTRA:
        raise fault(label, f"has an extra field of {len(data)} bytes")
    if _UNICODE_PATH in found and found[_UNICODE_PATH][5:] != raw:
        raise fault(label, "has a second name in an extra field, which some programs take and TorchServe does not")
    return found


def _name(entry: _Entry) -> str:
    """A member's name. Java decodes all names as UTF-8, whether the flag that says so is set or not."""
    try:
        return entry.raw.decode("utf-8")
    except UnicodeDecodeError:
        raise fault(entry.label, "has a name that is not UTF-8, which TorchServe cannot read") from None


def _local(file: IO[bytes], entry: _Entry, at: int, end: int) -> int:
    """Where a member's bytes begin. Raises Fault unless the header in front says what the directory says, and Java can
    read the member."""
    file.seek(at)
    header = file.read(30)
    if header[:4] != LOCAL or len(header) < 30:
        raise fault(entry.label, f"has no header where the directory says it begins: {_HIDES}")
    flags, method, _, crc, stored, size, names, extras = struct.unpack_from("<HHIIIIHH", header, 6)
    raw, extra = file.read(names), file.read(extras)
    if len(raw) != names or len(extra) != extras:
        raise fault(entry.label, "has a header that is cut short")
    wide = _extras(entry.label, raw, extra).get(_ZIP64)
    if not flags & _BEHIND and (_FULL in (stored, size) or wide is not None):
        if (stored, size) != (_FULL, _FULL) or wide is None or len(wide) != 16:
            raise fault(entry.label, "has a zip64 extra field that does not fit its sizes")
        size, stored = struct.unpack("<QQ", wide)
    if raw != entry.raw:
        raise _differs(entry, "name", raw.decode("utf-8", "backslashreplace"), entry.label)
    if method != entry.method:
        raise _differs(entry, "method", method, entry.method)
    if flags != entry.flags:
        raise _differs(entry, "flags", f"{flags:#x}", f"{entry.flags:#x}")
    _readable(entry)
    # With sizes behind the member, those in front are 0, or the same ones.
    zeros = bool(flags & _BEHIND)
    for what, front, listed in (
        ("CRC-32", crc, entry.crc32),
        ("packed size", stored, entry.stored),
        ("size", size, entry.size),
    ):
        if front != listed and not (zeros and front == 0):
            raise _differs(entry, what, front, listed)
    if zeros and wide is not None:
        raise fault(entry.label, "has sizes of eight bytes behind it, which only some Javas read")
    begin = at + len(header) + len(raw) + len(extra)
    if begin + entry.stored > end:
        raise fault(entry.label, f"reaches into what stands behind it: {_HIDES}")
    return begin


def _differs(entry: _Entry, what: str, front: object, listed: object) -> Fault:
    return fault(
        entry.label,
        f"has the {what} {printable(str(front))} in front and {printable(str(listed))} in the directory: TorchServe "
        "takes the first, other programs the second",
    )


def _readable(entry: _Entry) -> None:
    """Raises Fault for what TorchServe's reader cannot unpack."""
    why = ""
    if entry.flags & _ENCRYPTED:
        why = "is encrypted"
    elif entry.method not in (STORED, DEFLATED):
        why = f"is compressed by method {entry.method}"
    elif entry.flags & ~_KNOWN:
        why = f"has flags ({entry.flags:#x}) of an unknown meaning"
    elif entry.method == STORED and entry.flags & _BEHIND:
        why = "is stored with its size behind it"
    elif entry.method == STORED and entry.stored != entry.size:
        why = f"is stored as it is, with two sizes ({entry.stored} and {entry.size} bytes)"
    if why:
        raise fault(entry.label, f"{why}, which TorchServe's reader cannot unpack")


def _check_bytes(file: IO[bytes], member: Member, entry: _Entry) -> None:
    """Unpack a deflated member to see that it ends where it should; those that are stored end where their size says,
    and are held against their CRC-32 when they are read."""
    if member.method == DEFLATED or not member.size:
        try:
            for _ in unpacked(file, member):
                pass
        except Damage as damage:
            raise fault(entry.label, f"is damaged: {damage}", "Build it again, or copy it again.") from None


def _behind(file: IO[bytes], entry: _Entry, at: int) -> int:
    """The length of the record behind a member, which ZipInputStream reads as is done here. Raises Fault unless it says
    what the directory says."""
    wide = max(entry.size, entry.stored) > _FULL
    file.seek(at)
    record = file.read(24 if wide else 16)
    signed = record[:4] == _DESCRIPTOR
    form = "<IQQ" if wide else "<III"
    place, length = 4 if signed else 0, struct.calcsize(form)
    told = struct.unpack_from(form, record, place) if len(record) == length + 4 else ()
    if told != (entry.crc32, entry.stored, entry.size):
        raise fault(
            entry.label,
            "has another CRC-32 or size behind it than in the directory: TorchServe takes the first, other programs "
            "the second",
        )
    return place + length
