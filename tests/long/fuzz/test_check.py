"""The files of an archive, as `mar check` examines them: each is harmless or has a problem, and none that Python reads
as a pickle which calls something is harmless."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pickle
import pickletools
import re
import struct
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from hypothesis import strategies as st

from mar_pipeline.audit import examine, packed, pickles
from tests.support.archiver import safetensors

from .changes import changed_bytes
from .harness import Reader, check

NAMES = (
    "weights.dat", "pytorch_model.bin", "model.pt", "vocab.txt", "README", "x.json", "config.json", "x.yaml", "x.npy",
    "x.npz", "spiece.model", "x.png", "x.jpg", "model.safetensors", "x.gz", "x.zip", "x.pkl", "handler.py", "x.unknown",
)  # fmt: skip


class Called(Exception):
    """A pickle calls what it imports."""


class Imported:
    """Stands for whatever a pickle imports: any use of it as a function or a class is a call."""

    def __new__(cls, *_: Any) -> Any:
        raise Called

    def __setstate__(self, _: Any) -> None:
        raise Called


class Nothing:
    """What an unpickler imports: nothing."""

    def find_class(self, module: str, name: str) -> Any:
        # What no import can find.
        if not re.fullmatch(r"[\w.]+", module) or not re.fullmatch(r"[\w.]+", name):
            raise ImportError
        return Imported

    def persistent_load(self, pid: Any) -> Any:
        return pid


class Fast(Nothing, pickle.Unpickler):
    """As torch and NumPy read pickles."""


class Slow(Nothing, pickle._Unpickler):  # type: ignore[name-defined,misc]
    """As joblib reads them."""


def calls(data: bytes) -> bool:
    """Whether one of Python's two readers, which differ, comes to a call when it reads the bytes as a pickle."""
    for reader in (Fast, Slow):
        try:
            reader(io.BytesIO(data)).load()
        except Called:
            return True
        except Exception:
            continue
    return False


def zipped(files: dict[str, bytes]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as opened:
        for name, data in files.items():
            opened.writestr(zipfile.ZipInfo(name), data)  # without the time, so that a seed repeats an input
    return made.getvalue()


class Reduced:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("a",)


_ARRAY = b"{'descr': '<f8', 'fortran_order': False, 'shape': (2,)}".ljust(117) + b"\n"
_CODE = b"class M(Module):\n  def forward(self: __torch__.M, x: Tensor) -> Tensor:\n    return torch.add(x, 1)\n"
_PICKLES = [pickle.dumps(value, n) for value in (Reduced(), OrderedDict(a=1), {"a": [1, 2.5, "x"]}) for n in range(6)]
SEEDS = (
    *_PICKLES,
    *(b"N0" + data for data in _PICKLES[:6]),
    b"\x93NUMPY\x01\x00" + struct.pack("<H", len(_ARRAY)) + _ARRAY + bytes(16),
    b"\x0a\x09\x0a\x02ab\x15" + bytes(4) + b"\x12\x02\x08\x01",
    b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 0) + b"IEND\xaeB`\x82",
    b'{"a": [1, {"b": "c"}], "d": -1.5e3}',
    b"a: 1\nb: [c, &d e, *d]\n",
    safetensors({"a": ("F32", [2], bytes(8)), "b": ("U8", [1], b"V")}),
    zipped({"m/data.pkl": b"\x80\x02).", "m/constants.pkl": b"\x80\x02).", "m/code/__torch__.py": _CODE}),
    zipped({"m/data.pkl": _PICKLES[2], "m/version": b"3\n", "m/data/0": bytes(8)}),
    zipped({"a.npy": b"\x93NUMPY\x01\x00" + struct.pack("<H", len(_ARRAY)) + _ARRAY + bytes(16), "b.txt": b"text"}),
    b"[PAD]\ncat\n(c) 2024\nos\nsystem\n",
)
PACKS: tuple[Callable[[bytes], bytes], ...] = (
    lambda data: gzip.compress(data, mtime=0),
    bz2.compress,
    lzma.compress,
    lambda data: lzma.compress(data, lzma.FORMAT_ALONE),
    zlib.compress,
    lambda data: zipped({"a": data}),
    lambda data: b"junk" + data,
    lambda data: data + b"junk",
)


@st.composite
def files(draw: Callable[..., Any]) -> bytes:
    """A seed, changed or not, in none to three other files."""
    data: bytes = draw(st.one_of(st.sampled_from(SEEDS), changed_bytes(st.sampled_from(SEEDS))))
    for _ in range(draw(st.integers(0, 3))):
        data = draw(st.sampled_from(PACKS))(data)
    return data


_OPCODES = [opcode.code.encode("latin-1") for opcode in pickletools.opcodes]
_PARTS = (
    b"cos\nsystem\n", b"(ios\nsystem\n", b"\x8c\x02os", b"\x8c\x06system", b"U\x06system", b"X\x02\0\0\0os", b"Vos\n",
    b"S'a'\n", b"I5\n", b"L5L\n", b"F1.5\n", b"K\x01", b"M\0\0", b"J" + bytes(4), b"G" + bytes(8), b"C\x01a",
    b"\x8a\x01\x01", b"\x8b\x01\0\0\0\x01", b"\x8d\x01" + bytes(7) + b"a", b"q\0", b"h\0", b"p0\n", b"g0\n", b"p 1\n",
    b"g1\n", b"r" + bytes(4), b"j" + bytes(4), b"\x80\x04", b"\x95\x03" + bytes(7), b"\x95\x09" + bytes(7), b"Pa\n",
)  # fmt: skip


def _program(random: Random) -> bytes:
    """Opcodes and whole steps of pickles, in any order."""
    return b"".join(random.choice(random.choice((_PARTS, _OPCODES))) for _ in range(random.randrange(1, 14)))


programs = st.integers(0, 2**63).map(lambda number: _program(Random(number)))


def read(data: bytes, _folder: Path) -> None:
    name, content = NAMES[data[0] % len(NAMES)] if data else NAMES[0], data[1:]
    found = examine.problem(packed.held(name, content), packed.Budget())
    if calls(content):
        assert found is not None, "a pickle that calls something is taken for harmless"
        assert pickles.look(content, len(content), other=True), "it is an error for another reason alone"


READER = Reader(
    "check",
    read,
    st.tuples(st.binary(min_size=1, max_size=1), st.one_of(files(), changed_bytes(files()), programs)).map(b"".join),
)


def test_no_file_of_an_archive_ends_the_check_or_hides_a_pickle(tmp_path: Path) -> None:
    check(READER, tmp_path)
