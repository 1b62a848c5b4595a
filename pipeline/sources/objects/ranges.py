"""A file's bytes by ranges, several side by side: one line alone is slow, and what breaks off is lost but for whole
ranges."""

from __future__ import annotations

from typing import Any

from ..transfer.partial import Partial

_AT_ONCE = 4
_MOST, _FIRST, _LEAST = 1 << 21, 1 << 20, 1 << 15
"""Bytes of a range: of a good line, of one that is not known yet, and of the worst."""
_GOOD = 64
"""Ranges in a row after which a line is taken to be better than it was."""


class Ranges:
    """Brings what is missing of a file of `size` bytes, by an fsspec file system. The more often lines break, the
    shorter are the ranges; those that came behind a broken one are kept in memory."""

    def __init__(self, fs: Any, path: str, size: int) -> None:
        self._fs, self._path, self._size = fs, path, size
        self._length, self._good = _FIRST, 0
        self._kept: dict[int, bytes] = {}

    def __call__(self, into: Partial) -> None:
        """Raises what the file system raises."""
        while into.size < self._size:
            ranges = self._next(into.size)
            starts, ends = [start for start, _ in ranges], [end for _, end in ranges]
            error: BaseException | None = None
            got = self._fs.cat_ranges([self._path] * len(ranges), starts, ends, on_error="return")
            for (start, end), piece in zip(ranges, got, strict=True):
                if isinstance(piece, BaseException):
                    error = error or piece
                elif len(piece) != end - start:
                    error = error or ConnectionError("a part of a range")
                else:
                    self._kept[start] = bytes(piece)
            self._count(len(ranges), broken=error is not None)
            while into.size in self._kept:
                into.write(self._kept.pop(into.size))
            if error is not None:
                raise error
        self._kept.clear()

    def _next(self, place: int) -> list[tuple[int, int]]:
        """The next ranges from there on that are not here; what is here of another time is forgotten."""
        self._kept = {start: piece for start, piece in self._kept.items() if start > place}
        found: list[tuple[int, int]] = []
        while place < self._size and len(found) < _AT_ONCE:
            if place in self._kept:
                place += len(self._kept[place])
                continue
            after = min((start for start in self._kept if start > place), default=self._size)
            found.append((place, min(place + self._length, after)))
            place = found[-1][1]
        return found

    def _count(self, ranges: int, *, broken: bool) -> None:
        self._good = 0 if broken else self._good + ranges
        if broken:
            self._length = max(_LEAST, self._length // 4)
        elif self._good >= _GOOD and self._length < _MOST:
            self._length, self._good = self._length * 2, 0
