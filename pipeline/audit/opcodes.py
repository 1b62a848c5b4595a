"""Reads pickles opcode by opcode, without running them, and never raises on what a pickle's reader would accept.

Sizes and stack effects are those of Python's `pickletools.opcodes`. Arguments are skipped and not parsed: `pickletools`
refuses some that `pickle` and torch's readers take, and a pickle could hide behind one.
"""

from __future__ import annotations

import pickletools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

_LENGTHS = {
    pickletools.TAKEN_FROM_ARGUMENT1: 1,
    pickletools.TAKEN_FROM_ARGUMENT4: 4,
    pickletools.TAKEN_FROM_ARGUMENT4U: 4,
    pickletools.TAKEN_FROM_ARGUMENT8U: 8,
}
"""Bytes of the length in front of an argument."""

_TABLE: dict[int, Any] = {ord(opcode.code): opcode for opcode in pickletools.opcodes}
_BY_NAME: dict[str, Any] = {opcode.name: opcode for opcode in pickletools.opcodes}
_STRINGS = frozenset(
    ("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8")
)
_PUTS, _GETS = ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), ("GET", "BINGET", "LONG_BINGET")
_CALLS = frozenset(("REDUCE", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "BUILD"))
_MOST = 1_000_000
"""The most opcodes that are followed."""


class Cut(Exception):
    """The data ends inside of a pickle."""


class Misframed(Exception):
    """A frame ends inside of an opcode, or of another frame. Python's reader of a file then drops the frame's other
    bytes, and its reader of bytes in memory does not: what is imported depends on the reader."""


class Malformed(Exception):
    """The data is no pickle from here on: every reader stops."""


def read(data: bytes, at: int = 0, size: int | None = None) -> Iterator[tuple[str, bytes, int]]:
    """The opcodes from an offset up to STOP: name, argument, offset behind it.

    `data` is the beginning of `size` bytes; None: of an unknown number. Raises Cut where `data` ends before them,
    Malformed where a reader fails, and Misframed.
    """
    frame = 0  # where the frame ends
    while True:
        if at >= len(data):
            raise Malformed if len(data) == size else Cut
        opcode = _TABLE.get(data[at])
        if opcode is None:
            raise Malformed
        begin, end = _argument(data, at + 1, opcode)
        if end < 0 and len(data) == size:
            end = size  # Python's own reader, which joblib uses, takes a last line without an end
        if end < 0 or end > len(data):
            # Of a frame that ends in it, the reader of a file drops what is left, and finds another argument behind.
            if at < frame < len(data):
                raise Misframed
            raise Malformed if len(data) == size or (size is not None and end > size) else Cut
        if at < frame < end or (opcode.name == "FRAME" and end < frame):
            raise Misframed
        if opcode.name == "FRAME":
            frame = end + int.from_bytes(data[begin:end], "little")
        yield opcode.name, data[begin:end], end
        if opcode.name == "STOP":
            return
        at = end


def _argument(data: bytes, at: int, opcode: Any) -> tuple[int, int]:
    """The offsets where an opcode's argument begins, without its length, and ends; -1 for a line without an end."""
    if opcode.arg is None:
        return at, at
    size = opcode.arg.n
    if size >= 0:
        end = at + size
    elif size == pickletools.UP_TO_NEWLINE:
        end = at
        for _ in range(2 if opcode.name in ("GLOBAL", "INST") else 1):
            end = data.find(b"\n", end) + 1
            if not end:
                return at, -1
    else:
        width = _LENGTHS[size]
        if at + width > len(data):
            return at, at + width
        # Read as unsigned: readers refuse the negative lengths that BINSTRING and LONG4 can have.
        end = at + width + int.from_bytes(data[at : at + width], "little")
        at += width
    return at, end


@dataclass
class Trace:
    """What reading a pickle would do: the functions and classes it imports, each with whether its name is written out
    (or computed), whether it calls one of them, whether it was followed to its STOP or fails before, and `end`, the
    offset behind the last opcode that was followed.

    `cut` means that the data ends before any of that is decided.
    """

    names: dict[str, bool] = field(default_factory=dict)
    called: bool = False
    stopped: bool = False
    cut: bool = False
    end: int = 0


_MARK = object()


def follow(data: bytes, at: int = 0, size: int | None = None) -> Trace:
    """Follow the pickle at an offset with a stack, as its reader would. Where a reader may fail or not, it goes on.
    `data` and `size` are those of `read`."""
    trace = Trace(end=at)
    stack: list[Any] = []  # texts as str, marks as _MARK, everything else as None
    memo: dict[int, Any] = {}
    try:
        for count, (name, argument, end) in enumerate(read(data, at, size)):
            if count >= _MOST:
                trace.cut = True
                break
            if not _step(name, argument, stack, memo, trace):
                break
            trace.end = end
            trace.stopped = name == "STOP"
    except Malformed:
        pass
    except Misframed:
        trace.names["what its frames hide"] = False
        trace.called = True
    except Cut:
        trace.cut = True
    return trace


def _step(name: str, argument: bytes, stack: list[Any], memo: dict[int, Any], trace: Trace) -> bool:
    """Apply one opcode to the stack. False if every reader fails at it."""
    if name in _PUTS:
        if not stack:
            return False
        memo[len(memo) if name == "MEMOIZE" else _index(name, argument)] = stack[-1]
        return True
    if name in _GETS:
        stack.append(memo.get(_index(name, argument)))
        return True
    if name in ("POP", "DUP") and not stack:
        return False
    if name == "POP":  # of a mark, too
        stack.pop()
        return True
    if name in ("DUP", "MARK"):
        stack.append(stack[-1] if name == "DUP" else _MARK)
        return True
    popped = _pop(name, stack)
    if popped is None:
        return False
    if name == "STACK_GLOBAL":
        trace.names[".".join(str(part) if part is not None else "?" for part in popped)] = False
    elif name in ("GLOBAL", "INST"):
        module, _, rest = argument.decode("utf-8", "backslashreplace").partition("\n")
        trace.names[f"{module.strip()}.{rest.strip()}"] = rest.endswith("\n")
    elif name.startswith("EXT"):
        trace.names[f"copyreg extension {int.from_bytes(argument, 'little')}"] = False
    if name in _CALLS and trace.names:
        trace.called = True
    _push(name, argument, stack)
    return True


def _pop(name: str, stack: list[Any]) -> list[Any] | None:
    """What an opcode takes from the stack, without marks; None if there is not enough."""
    popped: list[Any] = []
    for kind in reversed(_BY_NAME[name].stack_before):
        if kind is pickletools.stackslice:
            while stack and stack[-1] is not _MARK:
                popped.append(stack.pop())
        elif kind is pickletools.markobject:
            if not stack or stack.pop() is not _MARK:
                return None
        elif name == "OBJ" and popped:
            continue  # the class is the slice's first
        elif not stack or stack[-1] is _MARK:
            return None
        else:
            popped.append(stack.pop())
    return popped[::-1]


def _push(name: str, argument: bytes, stack: list[Any]) -> None:
    if name in _STRINGS:
        text = argument.decode("utf-8", "backslashreplace")
        # Of the protocols that quote or end them.
        stack.append(text.strip().strip("'\"") if name in ("STRING", "UNICODE") else text)
    else:
        stack.extend(None for _ in _BY_NAME[name].stack_after)


def _index(name: str, argument: bytes) -> int:
    """The key of a memo; -1 for one that is not a number as readers write it."""
    if name in ("PUT", "GET"):
        text = argument.strip()
        return int(text) if text.isdigit() and len(text) < 10 else -1
    return int.from_bytes(argument, "little")
