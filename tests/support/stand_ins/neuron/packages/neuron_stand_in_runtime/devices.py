"""The chip's device file, pretended: once `pretend` was called, os.listdir("/dev"), glob, os.path.exists and Path find
/dev/neuron0 in this process. There is none, other processes do not see it, and it cannot be opened."""

from __future__ import annotations

import glob
import os
import pathlib
from fnmatch import fnmatch
from typing import Any

FILE = "/dev/neuron0"


def pretend() -> None:
    """Have it found, from now on."""
    if os.path.exists(FILE):  # noqa: PTH110
        return
    listdir, iglob = os.listdir, glob.iglob
    exists, lexists = os.path.exists, os.path.lexists
    path_exists, path_glob = pathlib.Path.exists, pathlib.Path.glob

    def with_it(path: Any = ".") -> list[Any]:
        names = listdir(path)
        return [*names, "neuron0"] if not isinstance(path, int) and _is(path, "/dev") else names

    def matching(pattern: Any, *args: Any, **words: Any) -> Any:
        yield from iglob(pattern, *args, **words)
        # A pattern without wildcards is looked up by lexists.
        if isinstance(pattern, str) and glob.has_magic(pattern) and fnmatch(FILE, pattern):
            yield FILE

    def below(self: Any, pattern: Any, *args: Any, **words: Any) -> Any:
        yield from path_glob(self, pattern, *args, **words)
        if _is(self, "/dev") and fnmatch("neuron0", str(pattern)):
            yield pathlib.Path(FILE)

    os.listdir = with_it
    # Others ask this set what the function can do.
    os.supports_fd.add(with_it)
    # glob.glob calls it.
    glob.iglob = matching
    os.path.exists = lambda path: _is(path, FILE) or exists(path)
    os.path.lexists = lambda path: _is(path, FILE) or lexists(path)
    pathlib.Path.exists = lambda self, **words: _is(self, FILE) or path_exists(self, **words)
    pathlib.Path.glob = below


def _is(path: Any, wanted: str) -> bool:
    if isinstance(path, int):
        return False
    return bool(os.path.normpath(os.fsdecode(path)) == wanted)
