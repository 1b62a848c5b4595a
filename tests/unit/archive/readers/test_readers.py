"""An archive that two programs could read in two ways is read by no command here; one that cannot is read as TorchServe
reads it."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import random
import shutil
import struct
import subprocess
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from mar_pipeline import __main__ as command
from mar_pipeline.archive import signing
from mar_pipeline.archive.reader import Archive
from mar_pipeline.errors import InputError
from tests.support import archiver
from tests.unit.archive.readers import tars, zips
from tests.unit.archive.readers.fuzz import run as fuzz
from tests.unit.archive.readers.java import Java, compiled, javas
from tests.unit.archive.readers.tars import Tar, record
from tests.unit.archive.readers.zips import FULL, Zip

FILES = {
    "MAR-INF/MANIFEST.json": zips.MANIFEST,
    "handler.py": archiver.HANDLER,
    "config.json": b'{"a": 1}',
    "weights/model.bin": bytes(range(256)) * 4,
}
EVIL = b"import os\n"


def zip_of(method: int = 0, *, behind: bool = False) -> Zip:
    return Zip([zips.made(name, data, method, behind=behind) for name, data in FILES.items()])


def tar_of(*, gnu: bool = False) -> Tar:
    return Tar([tars.made(b"m/" + name.encode(), data, gnu=gnu) for name, data in FILES.items()])


def front(archive: Zip, number: int = 2, **changes: Any) -> bytes:
    """A zip file one of whose members has another header in front."""
    one = archive.members[number]
    assert one.front
    one.front = replace(one.front, **changes)
    return archive.written()


def both(archive: Zip, number: int = 2, **changes: Any) -> bytes:
    one = archive.members[number]
    assert one.front
    assert one.listed
    one.front, one.listed = replace(one.front, **changes), replace(one.listed, **changes)
    return archive.written()


def hidden(method: int) -> bytes:
    """The handler once more, in what the directory takes for the last member's packed bytes."""
    archive = zip_of(method)
    one = archive.members[-1]
    assert one.front
    assert one.listed
    evil = zips.made("handler.py", EVIL)
    assert evil.front
    area = zips.local(evil.front) + EVIL
    if method:
        told = b"PK\7\b" + struct.pack("<III", one.front.crc, one.front.stored, one.front.size)
        one.front = replace(one.front, flags=8, crc=0, stored=0, size=0)
        one.packed += told + area
        one.listed = replace(one.listed, stored=len(one.packed))
    else:
        one.packed += area
        one.listed = replace(one.listed, crc=zlib.crc32(one.packed), stored=len(one.packed), size=len(one.packed))
    return archive.written()


def hidden_alike() -> bytes:
    """The same with the same flags in both places."""
    archive = zip_of(8, behind=True)
    one, evil = archive.members[-1], zips.made("handler.py", EVIL)
    assert one.listed
    assert evil.front
    one.packed += one.behind + zips.local(evil.front) + EVIL
    one.listed = replace(one.listed, stored=len(one.packed))
    one.behind = b"PK\7\b" + struct.pack("<III", one.listed.crc, one.listed.stored, one.listed.size)
    return archive.written()


def with_end(**changes: int) -> bytes:
    return replace(zip_of(), end=changes).written()


def unlisted() -> bytes:
    archive = zip_of()
    archive.members.append(replace(zips.made("handler.py", EVIL), listed=None))
    return archive.written()


def stored_behind() -> bytes:
    archive = zip_of()
    one = archive.members[2]
    assert one.listed
    one.behind = b"PK\7\b" + struct.pack("<III", one.listed.crc, one.listed.stored, one.listed.size)
    return both(archive, flags=8)


def behind(data: bytes) -> bytes:
    archive = zip_of(8, behind=True)
    archive.members[2].behind = data
    return archive.written()


def packed(change: Callable[[bytes], bytes]) -> bytes:
    archive = zip_of(8)
    one = archive.members[2]
    one.packed = change(one.packed)
    return both(archive, stored=len(one.packed))


def with_member(name: str) -> bytes:
    archive = zip_of()
    archive.members.append(zips.made(name, b"" if name.endswith("/") else b"x"))
    return archive.written()


def raw_name(name: bytes) -> bytes:
    return both(zip_of(), name=name)


UNICODE_PATH = b"\1" + struct.pack("<I", zlib.crc32(b"config.json")) + b"handler.py"

ZIPS: dict[str, Callable[[], bytes]] = {
    "another name in front": lambda: front(zip_of(), name=b"handler.py"),
    "another method in front": lambda: front(zip_of(), method=8),
    "another CRC-32 in front": lambda: front(zip_of(), crc=1),
    "another size in front": lambda: front(zip_of(), size=1),
    "another packed size in front": lambda: front(zip_of(), stored=1),
    "another size of a deflated member in front": lambda: front(zip_of(8), size=1),
    "encrypted in front": lambda: front(zip_of(), flags=1),
    "encrypted in both": lambda: both(zip_of(), flags=1),
    "sizes behind, in front alone": lambda: front(zip_of(8), flags=8),
    "sizes behind, in the directory alone": lambda: front(zip_of(8, behind=True), flags=0),
    "stored with sizes behind": stored_behind,
    "the UTF-8 flag in front alone": lambda: front(zip_of(), flags=0x800),
    "an unknown flag": lambda: both(zip_of(), flags=0x2000),
    "another method in both": lambda: both(zip_of(), method=12),
    "another size, stored, in both": lambda: both(zip_of(), stored=3),
    "zip64 sizes that are others": lambda: front(zip_of(), stored=FULL, size=FULL, extra=zips.zip64(3, 3)),
    "zip64 sizes of one field": lambda: front(zip_of(), size=FULL, extra=zips.zip64(8)),
    "zip64 sizes twice": lambda: front(zip_of(), stored=FULL, size=FULL, extra=zips.zip64(8, 8) * 2),
    "a second name": lambda: both(zip_of(), extra=struct.pack("<HH", 0x7075, len(UNICODE_PATH)) + UNICODE_PATH),
    "an extra field cut short": lambda: both(zip_of(), extra=struct.pack("<HH", 9, 5) + b"x"),
    "a hidden member behind a deflated stream": lambda: hidden(8),
    "a hidden member behind a deflated stream, flags alike": hidden_alike,
    "a hidden member behind a stored one": lambda: hidden(0),
    "an unlisted member": unlisted,
    "a member twice": lambda: with_member("handler.py"),
    "a deflated stream that ends early": lambda: packed(lambda data: data + b"\0\0\0"),
    "a deflated stream that does not end": lambda: packed(lambda data: data[:-1]),
    "a deflated stream that makes no sense": lambda: packed(lambda data: b"\xff" + data[1:]),
    "another CRC-32 behind": lambda: behind(b"PK\7\b" + bytes(12)),
    "nothing behind": lambda: behind(b""),
    "bytes in front": lambda: b"#!/bin/sh\n" + zip_of().written(),
    "bytes in front, counted": lambda: replace(zip_of(), before=b"#!/bin/sh\n").written(),
    "bytes between": lambda: replace(zip_of(), gap=b"\0").written(),
    "bytes behind the directory": lambda: replace(zip_of(), middle=b"\0\0").written(),
    "bytes at the end": lambda: zip_of().written() + b"\0",
    "another end in the comment": lambda: replace(zip_of(), comment=b"PK\5\6" + bytes(18)).written(),
    "another end in the comment, with bytes behind": lambda: replace(zip_of(), comment=b"PK\5\6" + bytes(20)).written(),
    "another end in the comment, cut short": lambda: replace(zip_of(), comment=b"PK\5\6").written(),
    "fewer members than there are": lambda: with_end(count=3),
    "more members than there are": lambda: with_end(count=5),
    "the directory elsewhere": lambda: with_end(start=7),
    "members in another order": lambda: replace(zip_of(), order=[0, 2, 1, 3]).written(),
    "zip64's end that differs": lambda: replace(zip_of(), far=True, end={"count": 3}).written(),
    "a name that is not UTF-8": lambda: raw_name(b"caf\x82.json"),
    "a name with NUL": lambda: raw_name(b"config.json\0.txt"),
    "a backslash": lambda: raw_name(b"a\\config.json"),
    "an empty name": lambda: raw_name(b""),
    "a dot": lambda: raw_name(b"./config.json"),
    "two slashes": lambda: raw_name(b"a//config.json"),
    "a way back": lambda: raw_name(b"a/../handler.py"),
    "a way out": lambda: raw_name(b"../config.json"),
    "an absolute path": lambda: raw_name(b"/config.json"),
    "too long a name": lambda: raw_name(b"n" * 300),
    "a file where a folder is": lambda: with_member("weights"),
    "a folder where a file is": lambda: with_member("handler.py/"),
    "a file below a file": lambda: with_member("handler.py/x"),
    "a folder with bytes": lambda: raw_name(b"config/"),
}


def header(number: int = 1, *, checked: bool = True, **fields: bytes) -> bytes:
    archive = tar_of()
    archive.members[number].fields.update(fields)
    archive.members[number].checked = checked
    return archive.written()


def with_header(data: bytes, kind: bytes, name: bytes = b"././@PaxHeader") -> bytes:
    archive = tar_of(gnu=kind == b"L")
    archive.members.insert(1, tars.made(name, data, kind))
    return archive.written()


def more(name: bytes, kind: bytes = b"0", data: bytes = EVIL) -> bytes:
    archive = tar_of()
    archive.members.append(tars.made(name, data, kind))
    return archive.written()


TARS: dict[str, Callable[[], bytes]] = {
    "a wrong checksum": lambda: header(checked=False, checksum=b"0000000\0"),
    "a wrong checksum, and members behind": lambda: header(3, checked=False, checksum=b"0000000\0"),
    "two gzip members": lambda: replace(tar_of(), parts=[1536]).written(),
    "another gzip member behind": lambda: tar_of().written() + gzip.compress(Tar([tars.made(b"m/x", b"x")]).tar()),
    "bytes behind the gzip member": lambda: tar_of().written() + b"\0",
    "a wrong CRC-32 of gzip": lambda: replace(tar_of(), crc=1).written(),
    "a wrong size of gzip": lambda: replace(tar_of(), size=1).written(),
    "cut short": lambda: tar_of().written()[:-20],
    "no end": lambda: replace(tar_of(), end=b"").written(),
    "half an end": lambda: replace(tar_of(), end=bytes(512)).written(),
    "a member behind one block of zeros": lambda: replace(
        tar_of(), end=bytes(512) + tars.made(b"m/handler.py", EVIL).written() + bytes(1024)
    ).written(),
    "a member behind the end": lambda: replace(
        tar_of(), end=bytes(1024) + tars.made(b"m/handler.py", EVIL).written()
    ).written(),
    "a size with letters": lambda: header(size=b"0000000z010\0"),
    "a size of eight-bit bytes": lambda: header(size=b"\x80" + bytes(9) + b"\0\x22"),
    "a size of more than there is": lambda: header(size=b"00000077777\0"),
    "no magic": lambda: header(magic=b""),
    "xstar": lambda: header(rest=bytes(8) + b"tar\0"),
    "bytes behind a name's end": lambda: header(name=b"m/x.py\0y"),
    "a name that is not ASCII": lambda: header(name=b"m/\xc3\xa9.py"),
    "a kind that nobody knows": lambda: header(kind=b"Z"),
    "a sparse file": lambda: header(kind=b"S"),
    "a global pax header": lambda: with_header(record(b"path", b"m/x"), b"g"),
    "a pax header with a sparse file's name": lambda: with_header(record(b"GNU.sparse.name", b"m/x"), b"x"),
    "a pax header with another character set": lambda: with_header(record(b"hdrcharset", b"BINARY"), b"x"),
    "a pax header with two paths": lambda: with_header(record(b"path", b"m/x") + record(b"path", b"m/y"), b"x"),
    "a pax header with an empty path": lambda: with_header(record(b"path", b""), b"x"),
    "a pax header that is not UTF-8": lambda: with_header(record(b"path", b"m/\xff"), b"x"),
    "a pax header of another length": lambda: with_header(b"99 path=m/x\n", b"x"),
    "a pax header whose size is no number": lambda: with_header(record(b"size", b"1e1"), b"x"),
    "two pax headers": lambda: Tar(
        [*[tars.made(b"x", record(b"path", b"m/y"), b"x")] * 2, *tar_of().members]
    ).written(),
    "a long name that is called otherwise": lambda: with_header(b"m/x\0", b"L", b"m/x"),
    "a long link name": lambda: with_header(b"m/x\0", b"K", b"././@LongLink"),
    "a symbolic link": lambda: more(b"m/x", b"2", b""),
    "a hard link": lambda: more(b"m/x", b"1", b""),
    "a pipe": lambda: more(b"m/x", b"6", b""),
    "a file with a folder's name": lambda: more(b"m/x/"),
    "a folder with bytes": lambda: more(b"m/x/", b"5"),
    "a folder without a slash": lambda: more(b"m", b"5", b""),
    "a member twice": lambda: more(b"m/handler.py"),
    "a member twice, in two folders": lambda: more(b"other/handler.py"),
    "a file below a file": lambda: more(b"m/handler.py/x"),
    "a way out": lambda: more(b"m/../../x"),
    "an absolute path": lambda: more(b"/m/x"),
}

_CASES = [
    *(pytest.param(".mar", make, id=f"zip: {name}") for name, make in ZIPS.items()),
    *(pytest.param(".tar.gz", make, id=f"tar: {name}") for name, make in TARS.items()),
]


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("key") / "private.pem"
    private = ec.generate_private_key(ec.SECP256R1())
    form = serialization.PrivateFormat.PKCS8
    path.write_bytes(private.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    path.with_name("public.pem").write_bytes(private.public_key().public_bytes(serialization.Encoding.PEM, spki))
    return path


def refused(line: list[object], capsys: pytest.CaptureFixture[str]) -> str:
    """What a command says that has to end with 2 and few lines."""
    code = command.run([str(word) for word in line])
    out, err = capsys.readouterr()
    assert code == 2, (line, out, err)
    assert "Traceback" not in out + err
    assert (out + err).count("\n") <= (3 if line[0] != "check" else 25)
    return out + err


@pytest.mark.parametrize(("suffix", "make"), _CASES)
def test_what_could_be_read_in_two_ways_is_read_by_no_command(
    tmp_path: Path, key: Path, capsys: pytest.CaptureFixture[str], suffix: str, make: Callable[[], bytes]
) -> None:
    archive, sound = tmp_path / f"model{suffix}", tmp_path / f"sound{suffix}"
    archive.write_bytes(make())
    sound.write_bytes((zip_of() if suffix == ".mar" else tar_of()).written())
    assert "error: " in refused(["check", archive], capsys)
    for line in (
        ["inspect", archive],
        ["diff", sound, archive],
        ["run", archive, "--input", "x", "--cache", tmp_path / "cache"],
        ["sign", archive, "--key", key],
    ):
        said = refused(line, capsys)
        assert said.startswith(f"error: {archive} is "), said
        assert "model" in said
    assert sorted(file.name for file in tmp_path.glob("*.sig")) == []


def test_every_command_that_opens_archives_refuses_it(
    tmp_path: Path, key: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "out" / "model-store"
    store.mkdir(parents=True)
    (tmp_path / "out" / "config").mkdir()
    # Another TorchServe of this machine may listen on the usual ports.
    monkeypatch.setattr("mar_pipeline.serving.serve.check_ports", lambda _: None)
    (tmp_path / "out" / "config" / "config.properties").write_text("load_models=all\nmodel_store=model-store\n")
    archive = store / "model.mar"
    archive.write_bytes(hidden_alike())
    cache = tmp_path / "cache"
    for line in (
        ["explain", archive, "--input", "x", "--cache", cache],
        ["smoke", archive, "--cache", cache],
        ["smoke", "--out", tmp_path / "out", "--cache", cache],
        ["serve", "--out", tmp_path / "out"],
    ):
        assert "model.bin is damaged" in refused(line, capsys), line
    bom = pytest.importorskip("mar_pipeline.archive.bom")
    with pytest.raises(InputError, match=r"model\.bin is damaged"):
        bom.write(tmp_path / "out", None)
    # Whoever signs with another program signs anything.
    with monkeypatch.context() as other:
        manifest = {"model": {"modelName": "model"}}
        unread = type("", (), {"verify": lambda _: None, "manifest": manifest, "path": archive})
        other.setattr(signing, "Archive", lambda _: unread())
        signing.sign(archive, key)
    assert "model.bin is damaged" in refused(["check", archive, "--key", key.with_name("public.pem")], capsys)


@pytest.mark.parametrize("suffix", [".mar", ".tar.gz"])
@pytest.mark.parametrize("name", ["run", "explain", "sign", "diff", "check", "digests"])
def test_other_bytes_than_the_checksum_tells_are_refused_where_they_are_read(
    tmp_path: Path, key: Path, capsys: pytest.CaptureFixture[str], name: str, suffix: str
) -> None:
    archive = tmp_path / f"model{suffix}"
    data = zip_of().written() if suffix == ".mar" else replace(tar_of(), crc=1).written()
    archive.write_bytes(data.replace(b'{"a": 1}', b'{"a": 2}'))
    line: list[object] = [name, archive]
    if name == "digests":
        with pytest.raises(InputError, match="damaged"):
            Archive(archive).digests()
        return
    line += ["--input", "x", "--cache", tmp_path / "cache"] if name in ("run", "explain") else []
    line += [archive] if name == "diff" else ["--key", key] if name == "sign" else []
    assert "damaged" in refused(line, capsys)


@pytest.mark.parametrize("place", ["archive", "named", "member", "manifest", "link to a folder"])
@pytest.mark.parametrize("name", ["check", "inspect", "run", "sign"])
def test_pipes_and_links_to_folders_are_refused_at_once(
    tmp_path: Path, key: Path, capsys: pytest.CaptureFixture[str], name: str, place: str
) -> None:
    archive = tmp_path / ("model.mar" if place == "archive" else "model.tar.gz" if place == "named" else "model")
    if place in ("archive", "named"):
        os.mkfifo(archive)
    else:
        for path, data in FILES.items():
            (archive / path).parent.mkdir(parents=True, exist_ok=True)
            (archive / path).write_bytes(data)
        if place == "manifest":
            (archive / "MAR-INF" / "MANIFEST.json").unlink()
        if place == "link to a folder":
            (tmp_path / "elsewhere").mkdir()
            (archive / "more").symlink_to(tmp_path / "elsewhere")
        else:
            os.mkfifo(archive / ("MAR-INF/MANIFEST.json" if place == "manifest" else "pipe.txt"))
    line: list[object] = [name, archive]
    line += (
        ["--input", "x", "--cache", tmp_path / "cache"] if name == "run" else ["--key", key] if name == "sign" else []
    )
    assert ("link to a folder" if "link" in place else "pipe") in refused(line, capsys)


def _archiver(folder: Path, form: str) -> Path:
    return archiver.make(folder, form=form)


def _python(folder: Path, method: int, *, streamed: bool) -> Path:
    class Stream(io.BytesIO):
        def seekable(self) -> bool:
            return not streamed

        def seek(self, *_: Any) -> int:
            if streamed:
                raise OSError
            return super().seek(*_)

        def tell(self) -> int:
            if streamed:
                raise OSError
            return super().tell()

    out = Stream()
    with zipfile.ZipFile(out, "w", method) as made:
        for name, data in FILES.items():
            made.writestr(name, data)
        made.mkdir("folder") if hasattr(made, "mkdir") else None
    (folder / "m.mar").write_bytes(out.getvalue())
    return folder / "m.mar"


def _wide(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "m.mar", "w") as made:
        for name, data in FILES.items():
            with made.open(name, "w", force_zip64=True) as member:
                member.write(data)
    return folder / "m.mar"


def _program(folder: Path, *line: str) -> Path:
    for name, data in FILES.items():
        (folder / "plain" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "plain" / name).write_bytes(data)
    if shutil.which(line[0]) is None:
        pytest.skip(f"there is no {line[0]} here")
    target = folder / ("m.tar.gz" if line[0] == "tar" else "m.mar")
    done = [word.replace("TARGET", str(target)) for word in line]
    subprocess.run(done, check=True, capture_output=True, cwd=folder / "plain")
    return target


def _tarfile(folder: Path, form: int) -> Path:
    with tarfile.open(folder / "m.tar.gz", "w:gz", format=form) as made:
        for name, data in FILES.items():
            info = tarfile.TarInfo(f"m/{name}")
            info.size, info.uid = len(data), 7 if form == tarfile.USTAR_FORMAT else 5_000_000
            made.addfile(info, io.BytesIO(data))
        info = tarfile.TarInfo("m/" + "deep/" * 40 + "x.txt")
        if form != tarfile.USTAR_FORMAT:
            made.addfile(info)
    return folder / "m.tar.gz"


def _written(folder: Path, name: str, data: bytes) -> Path:
    (folder / name).write_bytes(data)
    return folder / name


HONEST: dict[str, Callable[[Path], Path]] = {
    "zipfile, stored": lambda folder: _python(folder, zipfile.ZIP_STORED, streamed=False),
    "zipfile, deflated": lambda folder: _python(folder, zipfile.ZIP_DEFLATED, streamed=False),
    "zipfile to a pipe": lambda folder: _python(folder, zipfile.ZIP_DEFLATED, streamed=True),
    "zipfile, zip64": _wide,
    "zip": lambda folder: _program(folder, "zip", "-q", "-r", "TARGET", "."),
    "zip with sizes behind": lambda folder: _program(folder, "zip", "-q", "-D", "-fd", "-r", "TARGET", "."),
    "jar": lambda folder: _program(folder, "jar", "cMf", "TARGET", "."),
    "jar, stored": lambda folder: _program(folder, "jar", "c0Mf", "TARGET", "."),
    "by hand, zip64's end": lambda folder: _written(folder, "m.mar", replace(zip_of(), far=True).written()),
    "by hand, a comment": lambda folder: _written(folder, "m.mar", replace(zip_of(), comment=b"said").written()),
    "tarfile, pax": lambda folder: _tarfile(folder, tarfile.PAX_FORMAT),
    "tarfile, GNU": lambda folder: _tarfile(folder, tarfile.GNU_FORMAT),
    "tarfile, ustar": lambda folder: _tarfile(folder, tarfile.USTAR_FORMAT),
    "tar, GNU": lambda folder: _program(folder, "tar", "-czf", "TARGET", "."),
    "tar, pax": lambda folder: _program(folder, "tar", "--format=posix", "-czf", "TARGET", "."),
}


@pytest.mark.parametrize("made", HONEST.values(), ids=list(HONEST))
def test_archives_of_other_programs_are_read_where_they_mean_one_thing(
    tmp_path: Path, made: Callable[[Path], Path]
) -> None:
    archive = Archive(made(tmp_path))
    found = archive.digests()
    assert {name: found[name] for name in FILES} == {n: hashlib.sha256(d).hexdigest() for n, d in FILES.items()}
    unpacked = archive.unpack(tmp_path / "unpacked")
    assert {name: (unpacked / name).read_bytes() for name in FILES} == FILES
    assert {name: archive.read(name) for name in FILES} == FILES
    with archive.open("weights/model.bin") as stream:
        stream.seek(300)
        assert stream.read(4) == FILES["weights/model.bin"][300:304]


def test_a_name_without_the_utf8_flag_is_read_as_java_reads_it(tmp_path: Path) -> None:
    archive = tmp_path / "m.mar"
    archive.write_bytes(both(zip_of(), name="é.json".encode(), flags=0))
    assert "é.json" in Archive(archive).digests()


@pytest.mark.slow
def test_what_is_accepted_is_read_by_torchserves_own_classes_alike(tmp_path: Path) -> None:
    classes = compiled(tmp_path / "classes")
    if classes is None:
        pytest.skip("there is no Java compiler (javac) here")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    found = javas()
    figures = fuzz(range(150), found[:1], classes, scratch)
    assert figures.differing == []
    assert min(figures.accepted.values()) > 10  # not everything is refused
    # Those that are made honestly are read by every one.
    honest = []
    for number, made in enumerate(HONEST.values()):
        place = tmp_path / f"honest-{number}"
        place.mkdir()
        try:
            honest.append(made(place))
        except pytest.skip.Exception:
            continue
    for java in found:
        with Java(java, classes, scratch) as reader:
            assert reader.files(honest) == [Archive(archive).digests() for archive in honest]


def test_an_unchanged_archive_of_either_kind_is_accepted(tmp_path: Path) -> None:
    for seed in range(20):
        for suffix, sample in ((".mar", zips.sample), (".tar.gz", tars.sample)):
            archive = tmp_path / f"{seed}{suffix}"
            archive.write_bytes(sample(random.Random(seed)).written())
            assert Archive(archive).digests()
