"""The central directory at the end of a zip file; refused if programs may read it differently.

Records and fields are those of APPNOTE.TXT 4.3 to 4.5.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import IO

from .members import MOST, Damage, Fault, fault

LOCAL = b"PK\3\4"
END = b"PK\5\6"
_CENTRAL = b"PK\1\2"
_FAR_END, _LOCATOR = b"PK\6\6", b"PK\6\7"
FULL = 0xFFFFFFFF  # in a 32-bit field: the value is in the zip64 extra field

_LARGEST = 64 << 20  # bytes of a directory: some 1,000 for each of the most members
_LONGEST_COMMENT = 0xFFFF
_LONGEST_EXTRA = 0x7FFF  # bytes; newer Java versions refuse a name and extra field of more than 64 KiB together
ZIP64, _TIMES, _UNICODE_PATH = 1, 0x5455, 0x7075

HIDES = "TorchServe reads from the front and may unpack what other programs do not see"


@dataclass(frozen=True)
class Entry:
    """A member's entry in the directory; `place` is the offset of its local header."""

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
        """Its name for a message; bytes that are not UTF-8 are escaped."""
        return self.raw.decode("utf-8", "backslashreplace")


def read_directory(file: IO[bytes], size: int) -> tuple[int, list[Entry]]:
    """The directory's offset, and its entries in order. Raises Damage if the zip file has no end record, else Fault."""
    end, count, length, start = _end(file, size)
    if start + length != end:
        raise fault("", f"has a directory that is not where its end record says: {HIDES}")
    file.seek(0)
    if count and file.read(4) != LOCAL:
        raise fault("", f"has bytes in front of its first member: {HIDES}")
    if count > MOST:
        raise fault("", f"has {count} members; at most {MOST} are read", "Pack fewer files.")
    if length > _LARGEST:
        raise fault("", f"has a directory of {length} bytes; at most {_LARGEST} are read", "Pack fewer files.")
    file.seek(start)
    data = file.read(length)
    at, entries = 0, []
    for _ in range(count):
        entry, at = _central(data, at)
        entries.append(entry)
    if at != length:
        raise fault("", f"has a directory of {length} bytes, of which {length - at} belong to no member")
    return start, entries


def has_end(file: IO[bytes]) -> bool:
    """Whether a file ends like a zip file."""
    try:
        _end(file, file.seek(0, 2))
    except Damage:
        return False
    except Fault:
        return True
    return True


def _end(file: IO[bytes], size: int) -> tuple[int, int, int, int]:
    """From the end records: the offset where the directory has to end, the count of members, its length, its offset."""
    file.seek(max(0, size - 22 - _LONGEST_COMMENT - 20))
    tail = file.read()
    ends = []
    at = tail.find(END)
    while at >= 0:
        if len(tail) - at >= 22 and at + 22 + int.from_bytes(tail[at + 20 : at + 22], "little") == len(tail):
            ends.append(at)
        at = tail.find(END, at + 1)
    if not ends:
        raise Damage("it has no end record")
    # Also refuse a signature in the comment: Python's zipfile uses the last one, whether its length fits or not.
    if len(ends) > 1 or tail.rfind(END) > ends[0]:
        raise fault("", "has two end records, and programs differ in which one they use")
    at = ends[0]
    disk, start_disk, here, count, length, start, _ = struct.unpack_from("<4HIIH", tail, at + 4)
    end = size - len(tail) + at
    if at >= 20 and tail[at - 20 : at - 16] == _LOCATOR:
        return _far_end(file, end - 20, tail[at - 20 : at], (here, count, length, start))
    if (disk, start_disk) != (0, 0) or here != count:
        raise fault("", "is one part of a zip file of several parts")
    return end, count, length, start


def _far_end(file: IO[bytes], end: int, locator: bytes, near: tuple[int, ...]) -> tuple[int, int, int, int]:
    """The same from the zip64 records in front of the end record, which have to agree with it."""
    disk, place, disks = struct.unpack_from("<IQI", locator, 4)
    if (disk, disks) != (0, 1) or place + 56 != end:
        raise fault("", "has a zip64 end record that is not where it should be")
    file.seek(place)
    record = file.read(56)
    if record[:4] != _FAR_END:
        raise fault("", "has no zip64 end record where its locator says")
    length_of_record, _, _, disk, start_disk, here, count, length, start = struct.unpack_from("<QHHIIQQQQ", record, 4)
    if length_of_record != 44 or (disk, start_disk) != (0, 0) or here != count:
        raise fault("", "has a malformed zip64 end record")
    for value, wide, full in zip(near, (count, count, length, start), (0xFFFF, 0xFFFF, FULL, FULL), strict=True):
        if value not in (wide, full):
            raise fault("", "has two end records that disagree on its directory")
    return place, count, length, start


def _central(data: bytes, at: int) -> tuple[Entry, int]:
    """The directory's entry at an offset, and the offset behind it."""
    if data[at : at + 4] != _CENTRAL or len(data) - at < 46:
        raise fault("", "has a directory with fewer members than its end record says")
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
    wide = extra_fields(label, raw, extra).get(ZIP64, b"")
    in_extra = [value == FULL for value in (size, stored, place)]
    if len(wide) != 8 * sum(in_extra):
        raise fault(label, "has a zip64 extra field in the directory that does not fit its sizes")
    values = iter(struct.unpack(f"<{len(wide) // 8}Q", wide))
    size, stored, place = (
        next(values) if far else near for near, far in zip((size, stored, place), in_extra, strict=True)
    )
    return Entry(raw, flags, method, crc, stored, size, place, attributes), at


def extra_fields(label: str, raw: bytes, data: bytes) -> dict[int, bytes]:
    """The extra fields by header ID. Raises Fault if they are malformed, or give the member a second name."""
    fields: dict[int, bytes] = {}
    at = 0
    while at < len(data):
        kind, length = struct.unpack_from("<HH", data, at) if len(data) - at >= 4 else (0, len(data))
        content = data[at + 4 : at + 4 + length]
        if len(content) != length or kind in fields or (kind == _TIMES and not content):
            raise fault(label, "has a malformed extra field")
        fields[kind] = content
        at += 4 + length
    if len(data) > _LONGEST_EXTRA:
        raise fault(label, f"has an extra field of {len(data)} bytes")
    if _UNICODE_PATH in fields and fields[_UNICODE_PATH][5:] != raw:
        raise fault(label, "has a second name in an extra field, which some programs use and TorchServe does not")
    return fields
