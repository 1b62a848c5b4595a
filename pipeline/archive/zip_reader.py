"""The index of a zip file, read from the front as java.util.zip.ZipInputStream does, and compared with its directory.

TorchServe reads the local headers and never the directory at the end; most other programs read the directory. So both
have to agree on every member, and no byte may lie outside of the members. Records and fields are those of APPNOTE.TXT
4.3 to 4.5.
"""

from __future__ import annotations

import stat
import struct
from pathlib import Path
from typing import IO

from ..files.opening import opened
from ..text import printable
from .members import DEFLATED, STORED, Damage, Fault, Index, Member, check_names, fault, room, too_much, unpacked
from .zip_directory import FULL, HIDES, LOCAL, ZIP64, Entry, extra_fields, read_directory

_DESCRIPTOR = b"PK\7\b"

_ENCRYPTED, _BEHIND, _UTF8 = 1, 8, 0x800
_KNOWN = _BEHIND | _UTF8 | 6  # 6: the deflater's level of compression


def index(path: Path) -> Index:
    """The members of a zip file. Raises Fault unless it can be read in one way only, Damage if it is truncated."""
    with opened(path) as file:
        size = file.seek(0, 2)
        start, entries = read_directory(file, size)
        if sum(entry.size for entry in entries) > room(size):
            raise too_much(size)
        members: list[Member] = []
        folders: list[Member] = []
        at = 0
        for entry in entries:
            if entry.place != at:
                raise fault(entry.label, f"does not follow the member before it: {HIDES}")
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
                f"has {start - at} bytes behind its last member that its directory does not list and that TorchServe "
                "may unpack",
            )
    check_names([*((member.path, False) for member in members), *((folder.path, True) for folder in folders)])
    return Index(tuple(members), tuple(folder.path for folder in folders))


def _name(entry: Entry) -> str:
    """A member's name. Java decodes all names as UTF-8, whether the UTF-8 flag is set or not."""
    try:
        return entry.raw.decode("utf-8")
    except UnicodeDecodeError:
        raise fault(entry.label, "has a name that is not UTF-8, which TorchServe cannot read") from None


def _local(file: IO[bytes], entry: Entry, at: int, end: int) -> int:
    """The offset of a member's bytes. Raises Fault unless the local header agrees with the directory, and Java can read
    the member."""
    file.seek(at)
    header = file.read(30)
    if header[:4] != LOCAL or len(header) < 30:
        raise fault(entry.label, f"has no header at the offset that the directory lists: {HIDES}")
    flags, method, _, crc, stored, size, names, extras = struct.unpack_from("<HHIIIIHH", header, 6)
    raw, extra = file.read(names), file.read(extras)
    if len(raw) != names or len(extra) != extras:
        raise fault(entry.label, "has a header that is cut short")
    wide = extra_fields(entry.label, raw, extra).get(ZIP64)
    if not flags & _BEHIND and (FULL in (stored, size) or wide is not None):
        if (stored, size) != (FULL, FULL) or wide is None or len(wide) != 16:
            raise fault(entry.label, "has a zip64 extra field that does not fit its sizes")
        size, stored = struct.unpack("<QQ", wide)
    if raw != entry.raw:
        raise _differs(entry, "name", raw.decode("utf-8", "backslashreplace"), entry.label)
    if method != entry.method:
        raise _differs(entry, "method", method, entry.method)
    if flags != entry.flags:
        raise _differs(entry, "flags", f"{flags:#x}", f"{entry.flags:#x}")
    _readable(entry)
    # With sizes behind the member, those in front are 0, or the same.
    zeros = bool(flags & _BEHIND)
    for what, front, listed in (
        ("CRC-32", crc, entry.crc32),
        ("packed size", stored, entry.stored),
        ("size", size, entry.size),
    ):
        if front != listed and not (zeros and front == 0):
            raise _differs(entry, what, front, listed)
    if zeros and wide is not None:
        raise fault(entry.label, "has sizes of eight bytes behind it, which only some Java versions read")
    begin = at + len(header) + len(raw) + len(extra)
    if begin + entry.stored > end:
        raise fault(entry.label, f"overlaps what follows it: {HIDES}")
    return begin


def _differs(entry: Entry, what: str, front: object, listed: object) -> Fault:
    return fault(
        entry.label,
        f"has the {what} {printable(str(front))} in front and {printable(str(listed))} in the directory: TorchServe "
        "uses the first, other programs the second",
    )


def _readable(entry: Entry) -> None:
    """Raises Fault for a member that TorchServe's reader cannot unpack."""
    why = ""
    if entry.flags & _ENCRYPTED:
        why = "is encrypted"
    elif entry.method not in (STORED, DEFLATED):
        why = f"is compressed by method {entry.method}"
    elif entry.flags & ~_KNOWN:
        why = f"has unknown flags ({entry.flags:#x})"
    elif entry.method == STORED and entry.flags & _BEHIND:
        why = "is stored with its size behind it"
    elif entry.method == STORED and entry.stored != entry.size:
        why = f"is stored uncompressed with two sizes ({entry.stored} and {entry.size} bytes)"
    if why:
        raise fault(entry.label, f"{why}, which TorchServe's reader cannot unpack")


def _check_bytes(file: IO[bytes], member: Member, entry: Entry) -> None:
    """Unpack a deflated member to see that it ends where it should. Stored ones are checked when they are read."""
    if member.method == DEFLATED or not member.size:
        try:
            for _ in unpacked(file, member):
                pass
        except Damage as damage:
            raise fault(entry.label, f"is damaged: {damage}", "Build it again, or copy it again.") from None


def _behind(file: IO[bytes], entry: Entry, at: int) -> int:
    """The length of the data descriptor behind a member, as ZipInputStream reads it. Raises Fault unless it agrees with
    the directory."""
    wide = max(entry.size, entry.stored) > FULL
    file.seek(at)
    record = file.read(24 if wide else 16)
    signed = record[:4] == _DESCRIPTOR
    form = "<IQQ" if wide else "<III"
    place, length = 4 if signed else 0, struct.calcsize(form)
    values = struct.unpack_from(form, record, place) if len(record) == length + 4 else ()
    if values != (entry.crc32, entry.stored, entry.size):
        raise fault(
            entry.label,
            "has a different CRC-32 or size behind it than in the directory: TorchServe uses the first, other programs "
            "the second",
        )
    return place + length
