"""The kinds of files that are known to be harmless. A file is one of them by its content, and has a name that fits.

Each function returns why a file is not of its kind, "" if it is.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from contextlib import suppress

from ..files import yaml
from ..model.checkpoint import header
from . import arrays, json_syntax
from .content import Content

# fmt: off
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".dat", ".data", ".npy", ".npz", ".pkl", ".pickle", ".joblib")
"""Suffixes of files that torch, NumPy or joblib may load as pickles."""
SOURCES = (".py", ".pyw", ".sh")
"""Suffixes of programs that are text."""
PROGRAMS = (
    ".so", ".pyd", ".pyc", ".pyo", ".dll", ".dylib", ".exe", ".jar", ".class", ".war", ".whl", ".egg", ".elf", ".o",
    ".a", ".wasm", ".neff",
)
_FOREIGN = (
    ".h5", ".hdf5", ".keras", ".pb", ".onnx", ".tflite", ".msgpack", ".gguf", ".ggml", ".mar", ".zip", ".tar", ".gz",
    ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar", ".parquet", ".arrow", ".feather", ".mlmodel", ".ot", ".safetensors",
)
# fmt: on
_BINARY = frozenset((*PICKLES, *PROGRAMS, *_FOREIGN))
"""Suffixes of files that are not text, so a text of such a name is something else than it says."""

_MOST_PIECES = 16 << 20
"""Bytes of a SentencePiece model that are examined: a quarter of a million pieces take five million."""

_IMAGES = {
    ".png": b"\x89PNG\r\n\x1a\n",
    ".jpg": b"\xff\xd8\xff",
    ".jpeg": b"\xff\xd8\xff",
    ".gif": b"GIF8",
    ".webp": b"RIFF",
    ".ico": b"\0\0\1\0",
}


def unproven(file: Content) -> str:
    """Why the file is of no harmless kind, in words that follow its name; "" if it is of one."""
    kind: Callable[[Content], str] = _BY_SUFFIX.get(file.suffix, _text)
    return kind(file)


def _text(file: Content) -> str:
    """UTF-8 without NUL."""
    if file.suffix in _BINARY:
        return f"is no {file.suffix} file that is known to be harmless"
    if b"\0" in file.start:
        return "is no text, and of no kind that is known to be harmless"
    if file.whole is None:
        return f"has {file.size:,} bytes, more than are examined of a text"
    try:
        text = file.whole.decode("utf-8")
    except UnicodeDecodeError:
        return "is not text in UTF-8, and of no kind that is known to be harmless"
    return "has a NUL character in its text" if "\0" in text else ""


def _yaml(file: Content) -> str:
    if why := _text(file):
        return why
    if file.size > yaml.MAX_BYTES:
        return f"has {file.size:,} bytes, and YAML is examined up to {yaml.MAX_BYTES:,}"
    problems = yaml.parse((file.whole or b"").decode("utf-8-sig")).problems
    return f"is not plain YAML: line {problems[0].line}: {problems[0].message}" if problems else ""


def _safetensors(file: Content) -> str:
    length = int.from_bytes(file.start[:8], "little")
    if 8 + length > len(file.start) < file.size or file.start.count(b"[", 0, 8 + length) > json_syntax.MOST:
        return "has a longer header than is examined"
    try:
        header(io.BytesIO(file.start), file.size)
    except ValueError as error:
        return f"is not a complete safetensors file: {error}"
    return ""


def _sentencepiece(file: Content) -> str:
    """A text (tiktoken's ranks, for one), or SentencePiece's ModelProto, whose fields 1 to 5 are messages
    (https://github.com/google/sentencepiece/blob/master/src/sentencepiece_model.proto)."""
    if not _text(file):
        return ""
    data, at = file.whole, 0
    if data is None or len(data) > _MOST_PIECES or not _message(data, {1: 2, 2: 2, 3: 2, 4: 2, 5: 2}):
        return "is neither text nor a SentencePiece model"
    while at < len(data):
        number, begin, at = _field(data, at)
        # A piece: its text, score and type.
        if number == 1 and not _message(data[begin:at], {1: 2, 2: 5, 3: 0}):
            return "is no SentencePiece model: one of its pieces is malformed"
    return ""


def _message(data: bytes, fields: dict[int, int]) -> bool:
    """Whether the bytes are a message of protocol buffers with no other fields than these, number -> wire type
    (https://protobuf.dev/programming-guides/encoding)."""
    at = 0
    with suppress(ValueError):
        while at < len(data):
            tag, _ = _varint(data, at)
            number, _, at = _field(data, at)
            if fields.get(number) != tag & 7:
                return False
        return True
    return False


def _field(data: bytes, at: int) -> tuple[int, int, int]:
    """The number of the field at an offset, and where its value begins and ends. Raises ValueError."""
    tag, at = _varint(data, at)
    if tag & 7 == 0:
        end = _varint(data, at)[1]
    elif tag & 7 == 2:
        length, at = _varint(data, at)
        end = at + length
    else:
        end = at + {1: 8, 5: 4}.get(tag & 7, len(data) + 1)
    if end > len(data):
        raise ValueError
    return tag >> 3, at, end


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for place in range(10):
        if at + place >= len(data):
            raise ValueError
        value |= (data[at + place] & 127) << 7 * place
        if data[at + place] < 128:
            return value, at + place + 1
    raise ValueError


def _image(file: Content) -> str:
    if not file.start.startswith(_IMAGES[file.suffix]):
        return f"is no {file.suffix[1:].upper()} image"
    if file.suffix == ".png" and not _png(file):
        return "is a PNG image with other bytes in it"
    return ""


def _png(file: Content) -> bool:
    """Whether a PNG file has only chunks with their checksums, up to its end (https://www.w3.org/TR/png/#5)."""
    data, at, kind = file.whole or b"", 8, b""
    while at < len(data) and kind != b"IEND":
        length = int.from_bytes(data[at : at + 4], "big")
        kind, end = data[at + 4 : at + 8], at + 12 + length
        if end > len(data) or data[end - 4 : end] != struct.pack(">I", zlib.crc32(data[at + 4 : end - 4])):
            return False
        at = end
    return kind == b"IEND" and at == len(data)


def json_problem(file: Content) -> json_syntax.NotJson | None:
    """Why a `.json` file is not JSON; None if it is, or has another name."""
    if file.suffix != ".json":
        return None
    if file.whole is None:
        return json_syntax.NotJson("it is no text")
    try:
        json_syntax.check(file.whole.decode("utf-8"))
    except UnicodeDecodeError:
        return json_syntax.NotJson("it is not UTF-8")
    except json_syntax.NotJson as error:
        return error
    return None


_BY_SUFFIX: dict[str, Callable[[Content], str]] = {
    **dict.fromkeys((".yaml", ".yml"), _yaml),
    **dict.fromkeys(_IMAGES, _image),
    ".safetensors": _safetensors,
    ".model": _sentencepiece,
    ".npy": arrays.unproven,
}
