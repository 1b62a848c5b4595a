"""Archives that would fill the disk or take forever are refused before they are unpacked."""

from __future__ import annotations

import shutil
import struct
import time
import zipfile
import zlib
from collections import namedtuple
from pathlib import Path

import pytest

from mar_pipeline.archive import members, reader
from mar_pipeline.archive.reader import MANIFEST, Archive
from mar_pipeline.errors import InputError, StageError
from tests.unit.archive.readers import tars, zips

GB = 1 << 30


def zeros(size: int, wbits: int) -> bytes:
    """So many bytes of zeros, packed: one piece of them over and over."""
    packer = zlib.compressobj(9, zlib.DEFLATED, wbits)
    start = packer.compress(b"") + packer.flush(zlib.Z_FULL_FLUSH)
    piece = packer.compress(bytes(1 << 26)) + packer.flush(zlib.Z_FULL_FLUSH)
    return start + piece * (size >> 26)


def bomb(path: Path, size: int) -> Path:
    """A zip file with one member that unpacks to `size` bytes."""
    packed, end = zeros(size, -15), b"\3\0"
    one = zips.made("zeros.bin", b"", 8)
    assert one.front
    assert one.listed
    one.packed = packed + end
    for header in (one.front, one.listed):
        header.size, header.stored = size & zips.FULL, len(one.packed)
    path.write_bytes(zips.Zip([zips.made(MANIFEST, zips.MANIFEST), one]).written())
    return path


def test_a_zip_file_that_unpacks_to_far_more_than_it_has_is_refused_at_once(tmp_path: Path) -> None:
    archive = bomb(tmp_path / "bomb.mar", 3 * GB)
    assert archive.stat().st_size < 10 * 10**6
    began = time.process_time()
    with pytest.raises(InputError, match=r"unpacks to more than 1\.1 GB: it would fill the disk"):
        Archive(archive)
    assert time.process_time() - began < 1


def test_a_tar_file_that_unpacks_to_far_more_than_it_has_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "bomb.tar.gz"
    member = tars.made(b"model/zeros.bin", b"")
    member.fields["size"] = b"%011o\0" % (2 * GB)
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    start = packer.compress(member.written())
    file.write_bytes(start + packer.flush(zlib.Z_FULL_FLUSH) + zeros(2 * GB, -15))
    with pytest.raises(InputError, match=r"unpacks to more than 1\.1 GB"):
        Archive(file)


def test_an_archive_may_unpack_to_a_gigabyte_or_to_a_hundred_times_its_size() -> None:
    assert members.room(1) == GB
    assert members.room(GB) == 100 * GB
    assert members.room(1 << 50) == 1 << 40


def test_a_directory_of_a_sparse_file_is_not_read_into_memory(tmp_path: Path) -> None:
    file, length = tmp_path / "sparse.mar", (1 << 32) - 2
    with file.open("wb") as stream:
        stream.write(b"PK\3\4")
        stream.truncate(4 + length)
        stream.seek(4 + length)
        stream.write(b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, 1, 1, length, 4, 0))
    with pytest.raises(InputError, match="has a directory of 4294967294 bytes"):
        Archive(file)


def test_a_folder_with_more_files_than_are_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "MAR-INF").mkdir()
    (tmp_path / MANIFEST).write_bytes(zips.MANIFEST)
    (tmp_path / "a").touch()
    Archive(tmp_path)
    monkeypatch.setattr(reader, "MOST", 1)
    with pytest.raises(InputError, match="more than 1 files"):
        Archive(tmp_path)


def test_an_archive_is_not_unpacked_where_there_is_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.mar"
    with zipfile.ZipFile(file, "w") as opened:
        opened.writestr(MANIFEST, zips.MANIFEST)
        opened.writestr("weights", bytes(1000))
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(2000, 1000, 1000))
    with pytest.raises(StageError, match=r"^The disk is full: .* unpacks to 1\.1 kB, and .* has 1\.0 kB left"):
        Archive(file).unpack(tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_small_json_files_of_an_archive_have_a_size(tmp_path: Path) -> None:
    file = tmp_path / "a.mar"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr(MANIFEST, zips.MANIFEST)
        opened.writestr("index_to_name.json", b"[" + b"[]," * 6_000_000 + b"[]]")
    with pytest.raises(InputError, match="it may have 16,777,216"):
        Archive(file).json("index_to_name.json")
