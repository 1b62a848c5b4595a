"""Files that hold other files: how they are known, and what is in them, in bounded memory."""

from __future__ import annotations

import bz2
import io
import lzma
import tarfile
import time
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from ..archive import zip_directory
from ..archive.members import DEFLATED, STORED, Damage, Fault
from ..archive.reader import DAMAGE
from . import pickles
from .content import HELD, TAIL, Content

MOST_BYTES = 512 << 20
"""The most bytes that are unpacked from the files of an archive that hold others, of all of them together."""
MOST_MEMBERS = 20_000
SECONDS = 600
"""The time after which no further file of an archive is examined. The files of a large model take a few seconds."""

NOT_EXAMINED = {
    b"\x28\xb5\x2f\xfd": "a zstd file",
    b"\x04\x22\x4d\x18": "an LZ4 file",
    b"7z\xbc\xaf\x27\x1c": "a 7z file",
    b"Rar!": "a RAR file",
    b"\x1f\x9d": "a file of compress",
    b"\x1f\xa0": "a file of compress",
    b"MSCF": "a CAB file",
    b"xar!": "an XAR file",
    b"!<arch>\n": "a file of ar",
}
"""How files begin that hold others and are not unpacked here."""

_MEMORY = 256 << 20  # bytes for the dictionary of xz; its highest preset takes 65 MiB

_COMPRESSED: dict[bytes, Any] = {
    b"\x1f\x8b": lambda: zlib.decompressobj(31),
    b"BZh": bz2.BZ2Decompressor,
    b"\xfd7zXZ\0": lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MEMORY),
}
_ZLIB = {bytes([bits << 4 | 8]) for bits in range(8)}  # deflate, and the size of its window (RFC 1950)
_SUFFIXES = (".gz", ".bz2", ".xz")
_FAILURES = (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError, MemoryError)


class Unexamined(Exception):
    """Why what is in a file is not examined, in words that follow its name."""


@dataclass
class Budget:
    """What may still be unpacked, and until when (`time.monotonic`)."""

    bytes: int = MOST_BYTES
    members: int = MOST_MEMBERS
    until: float = field(default_factory=lambda: time.monotonic() + SECONDS)

    def spend(self, size: int) -> None:
        """Count one file of that many bytes. Raises Unexamined if that is too much."""
        self.bytes -= size
        self.members -= 1
        if size > HELD or self.bytes < 0 or self.members < 0:
            raise Unexamined("unpacks to more than is examined")


def held(path: str, data: bytes) -> Content:
    """A file whose bytes are in memory."""

    @contextmanager
    def opened() -> Iterator[io.BytesIO]:
        yield io.BytesIO(data)

    return Content(path, len(data), data[: pickles.WINDOW], data[-TAIL:], data, opened)


def is_compressed(start: bytes) -> bool:
    """Whether a file begins as gzip, bzip2 or xz do."""
    return start.startswith(tuple(_COMPRESSED))


def decompressed(file: Content, budget: Budget) -> Content | None:
    """What is in a file that begins as gzip, bzip2 or xz do; None for others. Raises Unexamined."""
    begins = next((begins for begins in _COMPRESSED if file.start.startswith(begins)), None)
    if begins is None:
        return None
    if file.whole is None:
        raise Unexamined("is compressed, and too large to be examined")
    unpacker = _COMPRESSED[begins]()
    try:
        data = unpacker.decompress(file.whole, min(HELD, max(0, budget.bytes)) + 1)
    except _FAILURES:
        raise Unexamined("begins like a compressed file but is not one") from None
    budget.spend(len(data))
    if not unpacker.eof or unpacker.unused_data:
        # Programs differ in whether they read a second part.
        raise Unexamined("is a compressed file that is cut short, or has other bytes behind its end")
    suffix = next((suffix for suffix in _SUFFIXES if file.path.lower().endswith(suffix)), "")
    return held(file.path[: len(file.path) - len(suffix)], data)


def beginning(file: Content) -> tuple[bytes, int | None] | None:
    """What the first bytes unpack to by zlib or the first form of lzma, and how many bytes there are (None: more);
    None if they unpack to nothing. Their marks are so short that other files have them by chance."""
    start = file.start
    if start[:1] in _ZLIB and int.from_bytes(start[:2], "big") % 31 == 0:
        unpacker: Any = zlib.decompressobj()
    elif start.startswith(b"\x5d\0"):
        unpacker = lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=_MEMORY)
    else:
        return None
    first = bytearray()
    # In pieces: what comes before an error counts, as joblib loads a file while it unpacks it.
    try:
        for at in range(0, len(start), 64):
            first += unpacker.decompress(start[at : at + 64], pickles.WINDOW)
            if unpacker.eof or len(first) >= pickles.WINDOW:
                break
        ended = unpacker.eof or (len(start) == file.size and len(first) < pickles.WINDOW)
    except _FAILURES:
        ended = True
    return (bytes(first), len(first) if ended else None) if first else None


def is_tar(start: bytes) -> bool:
    """Whether a file begins with the header of a tar file's member, by its checksum (POSIX ustar: the sum of the
    header's bytes, signed or not, with blanks for the checksum itself)."""
    block = start[: tarfile.BLOCKSIZE]
    told = block[148:156].strip(b" \0")
    if len(block) < tarfile.BLOCKSIZE or not told.isdigit() or set(told) & set(b"89"):
        return False
    rest = block[:148] + b" " * 8 + block[156:]
    return int(told, 8) in (sum(rest), sum(byte - 256 * (byte > 127) for byte in rest))


def is_zip(file: Content) -> bool:
    """Whether a file begins like a zip file, or has a directory of one at its end, as Python's zipfile finds it: behind
    any bytes, and in front of some."""
    if file.start.startswith((zip_directory.LOCAL, zip_directory.END)):
        return True
    at = file.end.rfind(zip_directory.END)
    if at < 0 or len(file.end) - at < 22:
        return False
    length = int.from_bytes(file.end[at + 12 : at + 16], "little")
    if 0 < length <= at:
        return file.end.startswith(b"PK\1\2", at - length)
    return at < length < file.size or length == zip_directory.FULL


@contextmanager
def opened_zip(file: Content) -> Iterator[zipfile.ZipFile]:
    """A zip file that every program reads in the same way. Raises Unexamined."""
    if not file.start.startswith((zip_directory.LOCAL, zip_directory.END)):
        raise Unexamined("has a zip file behind other bytes, which some programs open in its place")
    try:
        with file.open() as stream:
            _, entries = zip_directory.read_directory(stream, file.size)
            names = [entry.raw.lower() for entry in entries]
            if len(set(names)) < len(names) or any(b"\0" in name for name in names):
                raise Unexamined("is a zip file with a name twice, or with a malformed one")
            if any(entry.method not in (STORED, DEFLATED) for entry in entries):
                raise Unexamined("is a zip file with a compression that torch does not read")
            with zipfile.ZipFile(stream) as opened:
                yield opened
    except Damage:
        raise Unexamined("begins like a zip file but is not a whole one: torch refuses it") from None
    except Fault as fault:
        raise Unexamined(f"is a zip file that programs read differently: it {str(fault).partition(':')[0]}") from None
    except DAMAGE as error:
        raise Unexamined(f"is a zip file that is damaged: {str(error)[:100].rstrip('.')}") from None
