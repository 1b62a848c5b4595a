"""Every expected error, with the exit code that `mar` ends with.

    MarError
    ├── InputError      2   the command line, a config, a checkpoint or an archive cannot be used as given
    ├── StageError      3   a stage, or a server that was started, failed
    └── MismatchError   4   the finished archive does not answer like the model

An error reads as one to three lines: what failed, why that usually happens, what to do.
Anything else that is raised is unexpected: exit code 1, with its traceback. No error is DIFFERENT, 5: `mar diff` found
that two archives differ.
"""

from __future__ import annotations

import errno

OK = 0
UNEXPECTED = 1
DIFFERENT = 5
"""Of `mar diff`: the archives differ."""
INTERRUPTED = 130
"""As shells have it: 128 and the number of SIGINT."""


class MarError(Exception):
    """An expected error. `what` failed, `why` that usually happens, and how to `fix` it: a line each."""

    exit_code = UNEXPECTED

    def __init__(self, what: str, why: str = "", fix: str = "") -> None:
        self.what, self.why, self.fix = what, why, fix
        super().__init__("\n".join(line for line in (what, why, fix) if line))


class InputError(MarError):
    """Bad input or settings: nothing was started."""

    exit_code = 2


class StageError(MarError):
    """A stage failed; what was half made is gone, what other stages cached stays."""

    exit_code = 3


class MismatchError(MarError):
    """The archive's answers differ from the original model's."""

    exit_code = 4


def disk_is_full(error: BaseException) -> bool:
    """Whether an error says that a disk, or a user's share of it, is full. Libraries in Rust say so in their text."""
    numbers = (errno.ENOSPC, errno.EDQUOT)
    if isinstance(error, OSError):
        return error.errno in numbers
    return any(f"(os error {number})" in str(error) for number in numbers)
