"""Git LFS pointers: the short texts that a clone without git-lfs has in place of large files."""

from __future__ import annotations

from ..errors import InputError

LONGEST = 1024
"""The most bytes of a pointer (the specification's limit)."""

_BEGINNINGS = (b"version https://git-lfs.github.com/spec/", b"version https://hawser.github.com/spec/")


def is_pointer(content: bytes) -> bool:
    """Whether a file's content, or its beginning, is a pointer."""
    return content.startswith(_BEGINNINGS)


def refuse(content: bytes, where: str) -> None:
    """Raise InputError if the content of the file `where`, or its beginning, is a pointer."""
    if is_pointer(content):
        raise InputError(
            f"{where} is a Git LFS pointer, and not the file itself.",
            "A clone without git-lfs, or a download of the raw file, has such a text in place of a large file.",
            "Run `git lfs install` and `git lfs pull` in the clone, or download the file again.",
        )
