"""Detects pickles by their bytes: loading one runs any code that it names."""

from __future__ import annotations

import pickletools
import struct
import zipfile
import zlib
from dataclasses import dataclass
from typing import IO

_LOOK = 1 << 20
"""Bytes of a pickle that are parsed: names and classes of tensors come before their values."""

_OPCODES = frozenset(opcode.code.encode("latin-1") for opcode in pickletools.opcodes)
_SUFFIXES = (".pkl", ".pickle", ".joblib")
_STRINGS = ("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE", "STRING", "BINSTRING", "SHORT_BINSTRING")

# Modules that a saved model does not need, and that an attack would use.
# fmt: off
_HARMFUL_MODULES = frozenset((
    "os", "posix", "nt", "subprocess", "sys", "runpy", "socket", "shutil", "pty", "ctypes", "importlib", "webbrowser",
    "code", "pdb", "asyncio", "multiprocessing", "urllib", "http", "requests",
))
# fmt: on
_HARMFUL_BUILTINS = frozenset(("eval", "exec", "compile", "open", "__import__", "globals", "breakpoint"))


@dataclass(frozen=True)
class Pickled:
    """The kind of file, and the functions and classes that loading it imports, as far as they were parsed."""

    kind: str
    names: tuple[str, ...] = ()

    @property
    def harmful(self) -> tuple[str, ...]:
        """The names that a model does not need and an attack would use."""
        return tuple(name for name in self.names if _harmful(name))


def _harmful(name: str) -> bool:
    module, _, word = name.rpartition(".")
    if module in ("builtins", "__builtin__"):
        return word in _HARMFUL_BUILTINS
    return module.partition(".")[0] in _HARMFUL_MODULES


def look(start: bytes, path: str, *, whole: bool) -> Pickled | None:
    """Detect a pickle by the first bytes of a file, or all of them (`whole`); None if it is not one.

    For zip files, as torch.save writes them, use `look_in_zip`.
    """
    if start[:6] == b"\x93NUMPY":
        return Pickled("a NumPy array of objects") if _objects(start) else None
    if start[:2] == b"\x1f\x8b" or start[:1] == b"\x78":
        # joblib's compression.
        try:
            inner = zlib.decompressobj(47).decompress(start, _LOOK)
        except zlib.error:
            inner = b""
        if pickled := _raw(inner, whole=False):
            return Pickled("a compressed pickle", pickled.names)
    if pickled := _raw(start, whole=whole):
        return pickled
    if path.endswith(_SUFFIXES) and not start.startswith(b"PK\3\4"):
        return Pickled("a pickle by its name")
    return None


def look_in_zip(stream: IO[bytes]) -> Pickled | None:
    """Detect a pickle in a zip file; None if loading the file unpickles nothing. TorchScript pickles its constants too,
    but torch.jit has its own reader, which runs no code. Raises zipfile.BadZipFile."""
    with zipfile.ZipFile(stream) as opened:
        names = opened.namelist()
        last = {name.rpartition("/")[2] for name in names}
        if "constants.pkl" in last and any("code/" in name for name in names):
            return None
        for name in names:
            with opened.open(name) as member:
                start = member.read(_LOOK if name.endswith(_SUFFIXES) else 1024)
            pickled = look(start, name, whole=False)
            if pickled and name.rpartition("/")[2] == "data.pkl":
                return Pickled("a file of torch.save", pickled.names)
            if pickled:
                return Pickled(f"a zip file with {pickled.kind} in it", pickled.names)
    return None


def _raw(data: bytes, *, whole: bool) -> Pickled | None:
    """A pickle of protocol 2 to 5, or several in a row, as torch.save wrote before version 1.6."""
    if len(data) < 3 or data[0] != 0x80 or data[1] not in (2, 3, 4, 5) or data[2:3] not in _OPCODES:
        return None
    names: dict[str, None] = {}
    at, count = 0, 0
    while data[at : at + 1] == b"\x80" and count < 8:
        ended = _names(data, at, names)
        if ended is None:
            break
        at, count = ended, count + 1
    if whole and not count:
        return None
    kind = "a file of torch.save (before 1.6)" if data.startswith(b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46") else "a pickle"
    return Pickled(kind, tuple(names))


def _names(data: bytes, at: int, names: dict[str, None]) -> int | None:
    """Add the names that the pickle at offset `at` imports. Returns the offset after its end, None if it is truncated
    or malformed."""
    texts: list[str] = []
    memo: dict[int, str] = {}
    top = ""
    try:
        for opcode, argument, place in pickletools.genops(memoryview(data)[at:].tobytes()):
            if opcode.name in ("GLOBAL", "INST"):
                names[str(argument).replace(" ", ".")] = None
            elif opcode.name == "STACK_GLOBAL" and len(texts) > 1:
                names[".".join(texts[-2:])] = None
            elif opcode.name == "MEMOIZE":
                memo[len(memo)] = top
                continue
            elif opcode.name in ("PUT", "BINPUT", "LONG_BINPUT"):
                memo[int(str(argument))] = top
                continue
            elif opcode.name == "STOP":
                return at + int(place or 0) + 1
            top = ""
            if opcode.name in _STRINGS:
                top = str(argument)
            elif opcode.name in ("GET", "BINGET", "LONG_BINGET"):
                top = memo.get(int(str(argument)), "")
            if top:
                texts = [*texts[-1:], top]
    except Exception:  # on malformed bytes, pickletools raises anything
        return None
    return None


def _objects(start: bytes) -> bool:
    """Whether a .npy file has pickled objects as values, by its header (NEP 1)."""
    wide = start[6:7] >= b"\x02"
    form, first = ("<I", 12) if wide else ("<H", 10)
    if len(start) < first:
        return False
    (length,) = struct.unpack_from(form, start, 8)
    header = start[first : first + min(length, 1024)]
    return b"|O'" in header or b"'O'" in header
