"""Opens files that others name or made: only regular files, and no more of them than expected.

Opening a pipe waits for a writer, reading a device may never end, and a sparse file of a few bytes on the disk can have
any size.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import IO

LARGEST_JSON = 16 << 20
"""The most bytes of a small JSON file: settings, manifests, locks. Parsed, it takes up to 30 times as much memory."""

_KINDS = {
    stat.S_IFIFO: "it is a pipe, not a file",
    stat.S_IFSOCK: "it is a socket, not a file",
    stat.S_IFCHR: "it is a device, not a file",
    stat.S_IFBLK: "it is a device, not a file",
}


def opened(path: Path, *, links: bool = True) -> IO[bytes]:
    """A regular file, open for reading. Raises OSError for anything else, and without `links` for a symbolic link."""
    _refuse(path.stat() if links else path.lstat(), path)
    # O_NONBLOCK: it may have been replaced by a pipe meanwhile.
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if links else os.O_NOFOLLOW)
    number = os.open(path, flags)
    try:
        _refuse(os.fstat(number), path)
        return os.fdopen(number, "rb")
    except BaseException:
        os.close(number)
        raise


def _refuse(state: os.stat_result, path: Path) -> None:
    kind = stat.S_IFMT(state.st_mode)
    if kind == stat.S_IFDIR:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if kind in _KINDS:
        raise OSError(errno.EINVAL, _KINDS[kind], str(path))


def is_utf8(path: Path) -> bool:
    """Whether a path's bytes are UTF-8. Files can have other names, which libraries in Rust cannot open and JSON cannot
    hold."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def read_bytes(path: Path, most: int = LARGEST_JSON) -> bytes:
    """A regular file's bytes. Raises OSError if it is anything else, or larger than `most` bytes."""
    with opened(path) as stream:
        content = stream.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"it is larger than {most:,} bytes", str(path))
    return content


def read_text(path: Path, most: int = LARGEST_JSON) -> str:
    """A regular file's text. Raises OSError as `read_bytes`, UnicodeDecodeError if it is not UTF-8."""
    return read_bytes(path, most).decode("utf-8")
