"""Every expected error, with the exit code that `mar` ends with.

    MarError
    ├── InputError      2   the command line, a config, a checkpoint or an archive cannot be used as given
    ├── StageError      3   a stage, or a server that was started, failed
    └── MismatchError   4   the finished archive does not answer like the model

An error's text has one to three lines: what failed, why that usually happens, what to do.
Any other exception is unexpected: exit code 1, with its traceback. Exit code 5, DIFFERENT, is not an error: `mar diff`
found differences.
"""

from __future__ import annotations

import errno
import os

OK = 0
UNEXPECTED = 1
DIFFERENT = 5
"""`mar diff`: the archives differ."""
INTERRUPTED = 130
"""The shells' convention: 128 plus the number of SIGINT."""


class MarError(Exception):
    """An expected error, with a line each: `what` failed, `why` that usually happens, and how to `fix` it."""

    exit_code = UNEXPECTED

    def __init__(self, what: str, why: str = "", fix: str = "") -> None:
        self.what, self.why, self.fix = what, why, fix
        super().__init__(what, why, fix)

    def __str__(self) -> str:
        return "\n".join(line for line in (self.what, self.why, self.fix) if line)


class InputError(MarError):
    """Bad input or settings: no stage was run."""

    exit_code = 2


class StageError(MarError):
    """A stage failed. Its partial results are removed; the results of other stages stay cached."""

    exit_code = 3


class MismatchError(MarError):
    """The archive's answers differ from the original model's."""

    exit_code = 4


_PLACES = "--cache (MAR_CACHE) for the cache, --out for the output, or TMPDIR for temporary files"


def of_the_disk(error: OSError, where: object = None) -> StageError | None:
    """An error of the disk or the file system at `where`, in words; None for any other error."""
    place = where or error.filename2 or error.filename
    at = f" at {place}" if place else ""
    another = f"name another place: {_PLACES}."
    if error.errno == errno.ENOSPC and _has_no_inodes(place):
        return StageError(f"The disk{at} has no inodes left.", "It has too many files.", f"Remove some, or {another}")
    if error.errno == errno.ENOSPC:
        return StageError(f"The disk{at} is full.", fix=f"Free some space, or {another}")
    if error.errno == errno.EDQUOT:
        return StageError(f"Your quota of the disk{at} is used up.", fix=f"Free some space, or {another}")
    if error.errno == errno.EROFS:
        return StageError(f"The disk{at} is read-only.", fix=f"Make it writable, or {another}")
    if error.errno == errno.ENOLCK:
        return StageError(
            f"The file system{at} does not support locks ({error.strerror}).",
            "Some network file systems are mounted without them.",
            f"Use a disk of this machine: {_PLACES}.",
        )
    return None


def _has_no_inodes(place: object) -> bool:
    try:
        status = os.statvfs(str(place))
        return status.f_favail == 0 < status.f_files
    except (OSError, ValueError):
        return False


def disk_is_full(error: BaseException) -> bool:
    """Whether an error means that the disk, or the user's quota, is full. Libraries in Rust only have it in their
    text."""
    numbers = (errno.ENOSPC, errno.EDQUOT)
    if isinstance(error, OSError):
        return error.errno in numbers
    return any(f"(os error {number})" in str(error) for number in numbers)
