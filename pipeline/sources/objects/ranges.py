"""Downloads a file in ranges, several at once: one connection alone is slow. If it is interrupted, complete ranges are
kept."""

from __future__ import annotations

from typing import Any

from ..transfer.partial import Partial

_AT_ONCE = 4
_MOST, _FIRST, _LEAST = 1 << 21, 1 << 20, 1 << 15
"""Bytes of a range: the largest, the first and the smallest."""
_GOOD = 64
"""Ranges in a row without an error after which they become longer."""


class Ranges:
    """Appends the missing bytes of a file of `size` bytes, read by an fsspec file system. Ranges become shorter with
    each interruption; complete ranges after an interrupted one are kept in memory."""

    def __init__(self, fs: Any, path: str, size: int) -> None:
        self._fs, self._path, self._size = fs, path, size
        self._length, self._good = _FIRST, 0
        self._kept: dict[int, bytes] = {}

    def __call__(self, into: Partial) -> None:
        """Download the missing bytes. Raises what the file system raises."""
        while into.size < self._size:
            ranges = self._next(into.size)
            starts, ends = [start for start, _ in ranges], [end for _, end in ranges]
            error: BaseException | None = None
            got = self._fs.cat_ranges([self._path] * len(ranges), starts, ends, on_error="return")
            for (start, end), piece in zip(ranges, got, strict=True):
                if isinstance(piece, BaseException):
                    error = error or piece
                elif len(piece) != end - start:
                    error = error or ConnectionError("an incomplete range")
                else:
                    self._kept[start] = bytes(piece)
            self._count(len(ranges), broken=error is not None)
            while into.size in self._kept:
                into.write(self._kept.pop(into.size))
            if error is not None:
                raise error
        self._kept.clear()

    def _next(self, place: int) -> list[tuple[int, int]]:
        """The next missing ranges from `place` on (start, end). Kept ranges before it are discarded."""
        self._kept = {start: piece for start, piece in self._kept.items() if start > place}
        ranges: list[tuple[int, int]] = []
        while place < self._size and len(ranges) < _AT_ONCE:
            if place in self._kept:
                place += len(self._kept[place])
                continue
            after = min((start for start in self._kept if start > place), default=self._size)
            ranges.append((place, min(place + self._length, after)))
            place = ranges[-1][1]
        return ranges

    def _count(self, ranges: int, *, broken: bool) -> None:
        self._good = 0 if broken else self._good + ranges
        if broken:
            self._length = max(_LEAST, self._length // 4)
        elif self._good >= _GOOD and self._length < _MOST:
            self._length, self._good = self._length * 2, 0
