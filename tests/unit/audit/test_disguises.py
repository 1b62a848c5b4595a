"""Pickles in disguise: `mar check` finds each, and each of them really runs code when it is loaded."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mar_pipeline.audit import examine, packed
from tests.support.archiver import findings, make, safetensors

RAN = "MAR_TEST_RAN"
CODE = f"import os; os.environ['{RAN}'] = '1'".encode()


class Evil:
    """Loading its pickle sets an environment variable."""

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (CODE.decode(),)


def evil(protocol: int = 4) -> bytes:
    return pickle.dumps(Evil(), protocol)


def zipped(**files: bytes) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as opened:
        for name, data in files.items():
            opened.writestr(name.replace("__", "/").replace("_dot_", "."), data)
    return made.getvalue()


def tarred(**files: bytes) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as opened:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            opened.addfile(info, io.BytesIO(data))
    return made.getvalue()


def array(descr: str, body: bytes, count: int = 1) -> bytes:
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': ({count},)}}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + body


def polyglot() -> bytes:
    """Sound safetensors that pickle.load reads as UNICODE (V), a line up to the header's last one, and two dicts."""
    body = evil(0)
    for padding in range(300):
        note = {"": ("U8", [len(body)], body)}
        data = safetensors(note, note="a" * padding)
        length = int.from_bytes(data[:8], "little")
        text = data[8 : 8 + length].replace(b"}}", b"\n}}")
        if len(text) % 256 == ord("V"):
            return struct.pack("<Q", len(text)) + text + body
    raise AssertionError


def small_zlib(data: bytes) -> bytes:
    made = zlib.compressobj(wbits=9)
    return made.compress(data) + made.flush()


# Name, bytes, and how the disguise is loaded.
LOADED: dict[str, tuple[str, bytes, str]] = {
    **{f"protocol {number}": ("weights.dat", evil(number), "pickle") for number in range(6)},
    "a pop in front of PROTO": ("weights.dat", b"N0" + evil(4), "pickle"),
    "a long text in front": ("weights.dat", b"X" + struct.pack("<I", 1000) + b"a" * 1000 + b"0" + evil(2), "pickle"),
    "a mark and a pop in front": ("weights.dat", b"(1" + evil(4), "pickle"),
    "two PROTOs": ("weights.dat", b"\x80\x04\x80\x02" + evil(4), "pickle"),
    "a frame of the wrong place": ("weights.dat", b"N0\x95\x02" + bytes(7) + b"N0" + evil(4), "pickle"),
    "a frame that ends in an opcode": ("x.bin", b"\x95\x03" + bytes(7) + b"Gaa" + b"\x7f" * 8 + b"0" + evil(2), "file"),
    "a frame in a frame": ("x.bin", b"\x95\x0f" + bytes(7) + b"\x95\x60" + bytes(13) + evil(0) + bytes(99), "file"),
    "INST": ("vocab.txt", b"(V" + CODE + b"\nibuiltins\nexec\n.", "pickle"),
    "INST without an end": ("x.txt", b"(V" + CODE + b"\nibuiltins\nexecs", "joblib"),
    "OBJ": ("vocab.txt", b"(cbuiltins\nexec\nV" + CODE + b"\no.", "pickle"),
    "names from the memo": (
        "x",
        b"\x8c\x08builtins\x940\x8c\x04exec\x940h\x00h\x01\x93V" + CODE + b"\n\x85R.",
        "pickle",
    ),
    "text": ("README.md", evil(0), "pickle"),
    "json by name": ("data.json", evil(0), "pickle"),
    "python by name": ("more.txt", evil(0), "pickle"),
    "names that the memo has under another number": (
        "vocab.txt",
        b"U\x02a q\x010U\x08builtinsp0_1\n0h\x01U\x04execq\xc2\x93(V" + CODE + b"\ntR.",
        "pickle",
    ),
    "without STOP": ("weights.dat", evil(2)[:-1], "pickle"),
    "rubbish behind": ("weights.dat", evil(4) + bytes(1000), "pickle"),
    "the second of two": ("weights.dat", b"N." + evil(4), "second"),
    "safetensors": ("model2.safetensors", polyglot(), "pickle"),
    "gzip": ("x.gz", gzip.compress(evil()), "gzip"),
    "bzip2": ("x", bz2.compress(evil()), "bz2"),
    "xz": ("x.xz", lzma.compress(evil()), "lzma"),
    "lzma": ("x.lzma", lzma.compress(evil(), lzma.FORMAT_ALONE), "lzma"),
    "zlib": ("x.z", zlib.compress(evil()), "zlib"),
    "zlib of a small window": ("x.z", small_zlib(evil()), "zlib"),
    "zlib, cut short": ("x", zlib.compress(evil() + bytes(range(256)) * 50)[:-40], "zlib"),
    "gzip twice": ("x", gzip.compress(gzip.compress(evil())), "gzip twice"),
    "objects": ("x.npy", array("'|O'", evil()), "numpy"),
    "objects with another order": ("x.npy", array("'<O'", evil()), "numpy"),
    "objects, escaped": ("x.npy", array(r"'|\x4f'", evil()), "numpy"),
    "objects of a field": ("x.npy", array("[('a', '|O')]", evil()), "numpy"),
    "objects in npz": ("x.npz", zipped(a_dot_npy=array("'|O'", evil())), "npz"),
}


def _zlib(data: bytes) -> bytes:
    return zlib.decompressobj().decompress(data)


def _second(data: bytes) -> None:
    stream = io.BytesIO(data)
    pickle.load(stream)
    pickle.load(stream)


def _numpy(data: bytes) -> Any:
    import numpy

    return numpy.load(io.BytesIO(data), allow_pickle=True)


LOAD: dict[str, Callable[[bytes], Any]] = {
    "pickle": pickle.loads,
    "file": lambda data: pickle.load(io.BytesIO(data)),
    # The reader that joblib extends.
    "joblib": lambda data: pickle._Unpickler(io.BytesIO(data)).load(),  # type: ignore[attr-defined]
    "second": _second,
    "gzip": lambda data: pickle.loads(gzip.decompress(data)),
    "bz2": lambda data: pickle.loads(bz2.decompress(data)),
    "lzma": lambda data: pickle.loads(lzma.decompress(data)),
    "zlib": lambda data: pickle.loads(_zlib(data)),
    "gzip twice": lambda data: pickle.loads(gzip.decompress(gzip.decompress(data))),
    "numpy": _numpy,
    "npz": lambda data: _numpy(data)["a"],
}


@pytest.mark.parametrize("name", LOADED)
def test_a_pickle_is_found_in_any_disguise_that_runs_code(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    path, data, how = LOADED[name]
    monkeypatch.setenv(RAN, "")
    try:
        LOAD[how](data)
    except Exception as error:
        print(error)
    assert os.environ[RAN] == "1", "this disguise is no pickle"
    assert_refused(path, data)


def assert_refused(path: str, data: bytes) -> str:
    found = examine.problem(packed.held(path, data), packed.Budget())
    assert found is not None
    assert found.level == "error"
    return found.what


SCRIPT = {"a__constants_dot_pkl": b"\x80\x02).", "a__code____torch___dot_py": b"", "a__version": b"3\n"}

HIDDEN: dict[str, tuple[str, bytes]] = {
    "a zip file in a zip file": ("x.zip", zipped(inner=zipped(evil=evil()))),
    "behind other bytes": ("x.jpg", b"\xff\xd8\xff\xe0" + bytes(100) + zipped(evil=evil())),
    "behind an image and in front of more": ("x.jpg", b"\xff\xd8\xff\xe0" + zipped(evil=evil()) + bytes(100)),
    "a program in a zip file": ("x.zip", zipped(a__b_dot_py=b"x = 1\n")),
    "a script in gzip": ("x.gz", gzip.compress(b"#!/bin/sh\n")),
    "empty JSON": ("x.json", b""),
    "json by name, a zip file": ("x.json", zipped(a=b"text")),
    "a pointer in a zip file": ("x.zip", zipped(a=b"version https://git-lfs.github.com/spec/v1\n" + bytes(9))),
    "behind safetensors": ("x.safetensors", safetensors({"a": ("U8", [len(zipped(e=b"1"))], zipped(e=b"1"))})),
    "zip in gzip": ("x.txt", gzip.compress(zipped(evil=evil(0)))),
    "gzip in zip": ("x.zip", zipped(evil=gzip.compress(evil(0)))),
    "torch.save": ("x.txt", zipped(a__data_dot_pkl=evil(2), a__version=b"3\n")),
    "upper case": ("x.pt", zipped(A__DATA_dot_PKL=evil(2), a__version=b"3\n")),
    "beside TorchScript": ("x.pt", zipped(**SCRIPT, a__data_dot_pkl=evil(2))),
    "in TorchScript's constants": ("x.pt", zipped(**{**SCRIPT, "a__constants_dot_pkl": evil(2)})),
    "in a second folder": ("x.pt", zipped(**SCRIPT, b__data_dot_pkl=evil(2))),
    "in an extra file": ("x.pt", zipped(**SCRIPT, a__data_dot_pkl=b"\x80\x02).", a__extra__x=evil(2))),
    "a tar file": ("x.txt", tarred(storages=evil(2), tensors=evil(2), pickle=evil(2))),
    "a tar file in gzip": ("x.tgz", gzip.compress(tarred(pickle=evil(2)))),
    "zstd": ("x.zst", b"\x28\xb5\x2f\xfd" + bytes(50)),
    "a compiled module": ("x.pyc", b"\xa7\x0d\x0d\x0a" + bytes(50)),
    "a library": ("x.txt", b"\x7fELF" + bytes(100)),
    "text in a library's name": ("x.so", b"text"),
    "text in a weights' name": ("pytorch_model.bin", b"text"),
    "rubbish in a weights' name": ("pytorch_model.bin", b"\xff" * 100),
    "an HDF5 file": ("x.h5", b"\x89HDF\r\n\x1a\n" + bytes(50)),
    "cut zip": ("x.pt", zipped(a=b"1")[:-10]),
    "bytes in front": ("x.pt", b"#!/bin/sh\n" + zipped(a=b"1")),
    "a name twice": ("x.zip", zipped(aa=b"1", ab=b"2").replace(b"ab", b"aa")),
    "twice gzip": ("x.gz", gzip.compress(b"text") + gzip.compress(evil(0))),
    "rubbish behind gzip": ("x.gz", gzip.compress(b"text") + b"more"),
    "an array longer than it says": ("x.npy", array("'<f8'", bytes(8)) + evil()),
    "an array whose header lies": ("x.npy", array("'<f8'", bytes(7))),
    "named as an array": ("x.npy", evil(0)),
    "a malformed array": ("x.npy", b"\x93NUMPY\x01\x00\xff\xff{"),
    "a PNG image with more": ("x.png", b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 0) + b"IEND\xaeB`\x82" + b"more"),
    "no image": ("x.jpg", b"text"),
    "a vocabulary with more": ("spiece.model", b"\x0a\x04\x0a\x02ab\x92\x01\x00"),
    "unknown": ("x.thing", b"\x01\x02\xfe\xff" * 100),
    "a text with NUL": ("x.txt", b"text\0text"),
    "Latin-1": ("x.txt", b"caf\xe9"),
}


@pytest.mark.parametrize("name", HIDDEN)
def test_what_is_not_known_to_be_harmless_is_an_error(name: str) -> None:
    assert_refused(*HIDDEN[name])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "data"),
    [
        ("x.bin", evil(0)),
        ("x.bin", b"N0" + evil(4)),
        ("x.dat", tarred(storages=evil(2), tensors=evil(2), pickle=evil(2))),
        ("x.pt", zipped(a__data_dot_pkl=evil(2), a__version=b"3\n", a__byteorder=b"little")),
        ("x.bin", polyglot()),
    ],
    ids=["protocol 0", "N0", "tar", "zip", "safetensors"],
)
def test_torch_load_runs_these(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, path: str, data: bytes) -> None:
    import torch

    monkeypatch.setenv(RAN, "")
    (tmp_path / path).write_bytes(data)
    try:
        torch.load(tmp_path / path, weights_only=False)
    except Exception as error:
        print(error)
    assert os.environ[RAN] == "1", "this disguise is none for torch"
    assert_refused(path, data)


def nested(levels: int) -> bytes:
    data = b"text"
    for _ in range(levels):
        data = gzip.compress(data)
    return data


def test_an_archive_is_examined_up_to_a_time() -> None:
    found = examine.problem(packed.held("x.txt", b"text"), packed.Budget(until=0))
    assert found is not None
    assert "is not examined" in found.what


def test_files_in_files_are_examined_down_to_a_depth() -> None:
    assert examine.problem(packed.held("x.gz", nested(examine.DEEPEST)), packed.Budget()) is None
    assert "files in one another" in assert_refused("x.gz", nested(examine.DEEPEST + 1))


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress, lambda data: zipped(a=data)])
def test_what_unpacks_to_too_much_is_an_error(pack: Callable[[bytes], bytes]) -> None:
    data = pack(b"a" * 10_000)
    assert examine.problem(packed.held("x", data), packed.Budget()) is None
    found = examine.problem(packed.held("x", data), packed.Budget(bytes=9_999))
    assert found is not None
    assert "unpacks to more than is examined" in found.what


HARMLESS = {
    "vocab.txt": "[PAD]\n[UNK]\ncat\nöl\n(\n.\n".encode(),
    "more.txt": b"c\na\nb\nR\n.\n",
    "words.txt": b"can\nos\nNo\n",
    "NOTICE": b"(c) 2024 Somebody\nAll rights reserved.\nnot much.\n",
    "merges.txt": b"#version: 0.2\nt h\n",
    "empty.bin": b"",
    "labels.csv": b"a,b\n",
    "extra.yaml": b"a: 1\n",
    "numbers.npy": array("'<f8'", bytes(16), 2),
    "texts.npy": array("'<U3'", bytes(24), 2),
    "fields.npy": array("[('a', '<f4'), ('b', '|S2', (3,))]", bytes(20), 2),
    "numbers.npz": zipped(a_dot_npy=array("'|u1'", bytes(2), 2)),
    "spiece.model": b"\x0a\x09\x0a\x02ab\x15" + bytes(4) + b"\x12\x02\x08\x01",
    "image.png": b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 0) + b"IEND\xaeB`\x82",
    "photo.jpg": b"\xff\xd8\xff\xe0" + bytes(50),
    "two.safetensors": safetensors({"a": ("F32", [2], bytes(8))}),
    "docs.zip": zipped(a=b"text", b__c=b"more"),
    "vocab.txt.gz": gzip.compress(b"text"),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_files_of_harmless_kinds_are_none(name: str) -> None:
    assert examine.problem(packed.held(name, HARMLESS[name]), packed.Budget()) is None


@pytest.mark.parametrize("form", ["zip-store", "default", "tgz", "no-archive"])
def test_each_format_of_archive_is_examined(tmp_path: Path, form: str) -> None:
    """Files larger than what is kept in memory at first, too."""
    files: dict[str, bytes | None] = {
        **HARMLESS,
        "far.safetensors": safetensors({"a": ("U8", [3 << 20], bytes(3 << 20))}),
        "long.txt": b"word\n" * 500_000,
        "far.zip": zipped(a=b"a" * (2 << 20), b=evil()),
        "far.json": b"[" + b"1," * 1_000_000 + b"]",
    }
    errors = findings(make(tmp_path, files, form=form), "error")
    assert sorted(line.partition(":")[0] for line in errors) == ["far.json", "far.zip"]
