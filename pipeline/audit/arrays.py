"""NumPy's .npy files, read without NumPy (https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html)."""

from __future__ import annotations

import ast
import math
import re
import warnings
from typing import Any

from .content import Content

MAGIC = b"\x93NUMPY"
_LONGEST = 10_000  # bytes of a header: as NumPy's max_header_size
_NUMBERS = re.compile(r"[<>=|]?[biufcmMSUV?](\d+)?(\[[^\]]*\])?")
_ELEMENT = {"U": 4}  # bytes of a unit of the size


def unproven(file: Content) -> str:
    """Why a file is not an array of numbers or texts; "" if it is one."""
    if not file.start.startswith(MAGIC):
        return "is no array of NumPy"
    header = _header(file.start)
    if header is None:
        return "is an array of NumPy with a malformed header"
    described, shape, begin = header
    size = _item_size(described)
    if size is None:
        return "is an array of NumPy whose elements are not numbers or texts"
    count = math.prod(shape)
    if begin + size * count != file.size:
        return f"is an array of NumPy of {begin + size * count:,} bytes, but has {file.size:,}"
    return ""


def has_objects(start: bytes) -> bool:
    """Whether a file is an array whose elements are pickled, or may be."""
    if not start.startswith(MAGIC):
        return False
    header = _header(start)
    return header is not None and _item_size(header[0]) is None


def _header(start: bytes) -> tuple[Any, tuple[int, ...], int] | None:
    """descr, shape and the offset of the values; None if the header is malformed."""
    width = 4 if start[6:7] >= b"\x02" else 2
    begin = 8 + width
    length = int.from_bytes(start[8:begin], "little")
    if length > _LONGEST or begin + length > len(start):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes that are none
            value = ast.literal_eval(start[begin : begin + length].decode("latin1").strip())
        shape = value["shape"]
        if value.keys() != {"descr", "fortran_order", "shape"} or not all(type(n) is int and n >= 0 for n in shape):
            return None
        return value["descr"], tuple(shape), begin + length
    except (ValueError, SyntaxError, TypeError, KeyError, AttributeError, RecursionError, MemoryError):
        return None


def _item_size(descr: Any) -> int | None:
    """Bytes of an element; None if it is not of numbers and texts alone, as an object is not."""
    if isinstance(descr, str):
        matched = _NUMBERS.fullmatch(descr)
        kind = descr.lstrip("<>=|")[:1]
        return (1 if kind == "?" else int(matched[1] or 0) * _ELEMENT.get(kind, 1)) if matched else None
    if not isinstance(descr, list) or not descr:
        return None
    sizes = []
    for field in descr:
        if not isinstance(field, tuple) or len(field) not in (2, 3):
            return None
        shape = field[2] if len(field) == 3 else ()
        size = _item_size(field[1])
        if size is None or not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape):
            return None
        sizes.append(size * math.prod(shape))
    return sum(sizes)
