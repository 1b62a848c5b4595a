"""Archives as `archive.writer` writes them, beside those that torch-model-archiver makes of the same files."""

from __future__ import annotations

import io
import json
import os
import random
import subprocess
import sys
import tarfile
import zipfile
import zlib
from pathlib import Path

import pytest

from mar_pipeline.archive import writer
from mar_pipeline.archive.reader import Archive
from mar_pipeline.archive.writer import EPOCH, Member
from mar_pipeline.errors import InputError
from mar_pipeline.files.tree import Entry, joined_crc, scan, walk


def quiet(_count: int) -> None:
    """Nobody is told how it goes."""


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder of files as an archive has them, of names that are easy to get wrong."""
    folder, noise = tmp_path / "files", random.Random(7)
    contents = {
        "model.safetensors": noise.randbytes(3 << 20),
        "config.json": b"{}",
        "empty.txt": b"",
        "handler.py": b"class Handler: pass\n",
        "1_Pooling/config.json": b'{"pooling": 1}',
        "a,b [c]*?.txt": b"commas and wildcards",
        "\u00e4\u4e2d\U0001f600.txt": b"not ASCII",
        "deep/er/file": b"x" * 5000,
    }
    for path, data in contents.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return folder


def members(folder: Path) -> list[Member]:
    return [Member(scan(file, path), file) for file, path in walk(folder)]


def pack(files: Path | list[Member], target: Path, form: str, seconds: int = EPOCH) -> Entry:
    held = members(files) if isinstance(files, Path) else files
    if form == "tgz":
        return writer.write_tar(target, held, seconds, quiet, root="name")
    return writer.write_zip(target, held, seconds, quiet, deflated=form == "default")


FORMS = ("zip-store", "default", "tgz")


def by_the_archiver(files: Path, folder: Path, form: str) -> Path:
    """torch-model-archiver's own archive, called name, of the same files."""
    (folder / "tmp").mkdir(parents=True)
    (folder / "out").mkdir()
    words = ["--model-name", "name", "--version", "1", "--handler", "handler.py", "--extra-files", "."]
    words += ["--archive-format", form, "--export-path", str(folder / "out")]
    subprocess.run(
        [sys.executable, "-m", "model_archiver.model_packaging", *words],
        cwd=files,
        env={**os.environ, "TMPDIR": str(folder / "tmp")},
        check=True,
    )
    (made,) = (folder / "out").iterdir()
    return made


@pytest.mark.parametrize("form", FORMS)
def test_members_are_those_of_the_archivers_own_archive(files: Path, tmp_path: Path, form: str) -> None:
    theirs = by_the_archiver(files, tmp_path / "theirs", form)
    ours = tmp_path / theirs.name
    pack(files, ours, form)

    def contents(path: Path) -> dict[str, tuple[bytes, object]]:
        if form == "tgz":
            with tarfile.open(path, "r:gz") as tar:
                infos = [info for info in tar.getmembers() if not info.name.endswith("MANIFEST.json")]
                return {info.name: (tar.extractfile(info).read(), info.type) for info in infos}  # type: ignore[union-attr]
        with zipfile.ZipFile(path) as opened:
            infos = [info for info in opened.infolist() if not info.filename.endswith("MANIFEST.json")]
            return {info.filename: (opened.read(info), (info.compress_type, info.compress_size)) for info in infos}

    assert contents(ours) == contents(theirs)
    assert len(contents(ours)) == 8


@pytest.mark.parametrize("form", FORMS)
def test_the_entry_is_what_reading_the_file_again_gives(files: Path, tmp_path: Path, form: str) -> None:
    assert pack(files, tmp_path / "a", form) == scan(tmp_path / "a", "a")


@pytest.mark.parametrize("form", FORMS)
def test_nothing_of_the_files_but_names_and_contents_is_in_the_archive(files: Path, tmp_path: Path, form: str) -> None:
    first = pack(files, tmp_path / "a", form)
    for file, _ in walk(files):
        file.chmod(0o600)
        os.utime(file, (1, 1))
    second = pack(files, tmp_path / "a", form)
    assert first == second
    assert pack(files, tmp_path / "a", form, EPOCH + 86400).sha256 != first.sha256


@pytest.mark.parametrize("form", ["zip-store", "default"])
def test_other_readers_find_nothing_wrong(files: Path, tmp_path: Path, form: str) -> None:
    pack(files, tmp_path / "a.mar", form, 1_700_000_001)
    with zipfile.ZipFile(tmp_path / "a.mar") as opened:
        assert opened.testzip() is None
        assert {info.date_time for info in opened.infolist()} == {(2023, 11, 14, 22, 13, 20)}
        assert {oct(info.external_attr >> 16) for info in opened.infolist()} == {"0o100644"}
    listed = subprocess.run(["unzip", "-tq", "a.mar"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert listed.returncode == 0, listed.stdout


@pytest.mark.parametrize("form", ["zip-store", "default"])
def test_sizes_and_places_of_eight_bytes(
    files: Path, tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Beyond 4 GiB they have to be; here from 1 kB on, so that most of a small archive is written so.
    monkeypatch.setattr(writer, "_WIDE", 1000)
    monkeypatch.setattr(writer, "_FAR", 1000)
    pack(files, tmp_path / "a.mar", form)
    assert (tmp_path / "a.mar").read_bytes().count(b"\xff" * 8) >= 4
    with zipfile.ZipFile(tmp_path / "a.mar") as opened:
        assert opened.testzip() is None
        assert {name: opened.read(name) for name in opened.namelist()} == {
            path: file.read_bytes() for file, path in walk(files)
        }
    listed = subprocess.run(["unzip", "-tq", "a.mar"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert listed.returncode == 0, listed.stdout


def test_more_members_than_two_bytes_count(tmp_path: Path) -> None:
    many = [Member.of(f"{number}", b"") for number in range(70_000)]
    writer.write_zip(tmp_path / "a.mar", many, EPOCH, quiet, deflated=False)
    with zipfile.ZipFile(tmp_path / "a.mar") as opened:
        assert len(opened.namelist()) == 70_000


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("change", [b"\x00", b""], ids=["another byte", "a byte less"])
def test_a_file_that_is_not_its_entrys_is_noticed(files: Path, tmp_path: Path, form: str, change: bytes) -> None:
    held = members(files)
    file = files / "model.safetensors"
    file.write_bytes(change + file.read_bytes()[1:])
    with pytest.raises(writer.Wrong) as caught:
        pack(held, tmp_path / "a", form)
    assert caught.value.entry.path == "model.safetensors"


def test_joined_checksums_are_those_of_the_whole() -> None:
    noise = random.Random(1)
    for _ in range(50):
        first, second = noise.randbytes(noise.randrange(300)), noise.randbytes(noise.randrange(70_000))
        assert joined_crc(zlib.crc32(first), zlib.crc32(second), len(second)) == zlib.crc32(first + second)


@pytest.mark.parametrize(
    ("paths", "said"),
    [
        (["a", "a"], "would be the same file"),
        (["Model.bin", "model.bin"], "case-insensitive"),
        ([".git/config"], "drops folders like .git"),
        (["a/__pycache__/b.pyc"], "drops folders like __pycache__"),
        (["../b"], "cannot be a file's name"),
        (["/etc/passwd"], "cannot be a file's name"),
        (["a//b"], "cannot be a file's name"),
        (["a\\b"], "cannot be a file's name"),
        (["a\nb"], "cannot be a file's name"),
    ],
    ids=lambda value: str(value) if isinstance(value, list) else "",
)
def test_names_that_an_archive_cannot_hold_are_refused(paths: list[str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        writer.refuse(paths, lambda folder: not folder.startswith((".", "__pycache__")))


@pytest.mark.parametrize("text", ["now", "-1", "1.5", "\u0663"])
def test_a_time_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="SOURCE_DATE_EPOCH"):
        writer.epoch(text)


def test_the_time_of_an_archive_is_the_environments_or_the_first_there_is() -> None:
    assert writer.epoch("1700000000") == 1_700_000_000
    assert writer.epoch(None) == writer.epoch("") == EPOCH


def test_an_archive_reads_back(files: Path, tmp_path: Path) -> None:
    (files / "MAR-INF").mkdir()
    (files / "MAR-INF" / "MANIFEST.json").write_text(json.dumps({"model": {"modelName": "name"}}))
    for name, form in (("a.mar", "zip-store"), ("b.mar", "default"), ("c.tar.gz", "tgz")):
        pack(files, tmp_path / name, form)
        archive = Archive(tmp_path / name)
        assert {one.path: one.size for one in archive.members()} == {
            path: file.stat().st_size for file, path in walk(files)
        }
        archive.unpack(tmp_path / f"{name}-unpacked")
        for file, path in walk(files):
            assert (tmp_path / f"{name}-unpacked" / path).read_bytes() == file.read_bytes()


def test_a_graph_of_bytes_and_files_together(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"on disk")
    both = [Member(scan(tmp_path / "file", "b"), tmp_path / "file"), Member.of("a", b"in memory")]
    writer.write_zip(tmp_path / "z", both, EPOCH, quiet, deflated=False)
    with zipfile.ZipFile(io.BytesIO((tmp_path / "z").read_bytes())) as opened:
        assert {name: opened.read(name) for name in opened.namelist()} == {"b": b"on disk", "a": b"in memory"}
