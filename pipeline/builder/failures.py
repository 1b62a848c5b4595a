"""What the disk says while a stage runs, in our words."""

from __future__ import annotations

import errno
import shlex
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import StageError, disk_is_full
from .build import Build
from .stages import model_store


@contextmanager
def explained(build: Build, stage: str) -> Iterator[None]:
    """What the disk says, in our words."""
    try:
        yield
    except OSError as error:
        if disk_is_full(error):
            where = error.filename2 or error.filename or (build.out if stage == model_store.NAME else build.store.root)
            clean = f"mar cache gc --max-size 5GB --cache {shlex.quote(str(build.store.root))}"
            raise StageError(
                f"The disk is full: {stage} could not write to {where}.",
                f"The cache is {build.store.root}, the output {build.out}.",
                f"Free some space ({clean}), or use --cache and --out for other disks; then build again.",
            ) from None
        unusable = (errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENOENT)
        ours = str(error.filename or "").startswith((str(build.out), str(build.store.root)))
        if ours and (isinstance(error, PermissionError) or error.errno in unusable):
            a_file = error.errno in (errno.ENOTDIR, errno.EEXIST)
            raise StageError(
                f"{stage} cannot write to {error.filename} ({error.strerror}).",
                fix="A file is there, or above it: use --cache and --out for folders."
                if a_file
                else "Make it writable, or use --cache and --out for folders that are.",
            ) from None
        if isinstance(error, PermissionError):
            raise StageError(
                f"{stage} may not use {error.filename} ({error.strerror}).", fix="Give this user the right to it."
            ) from None
        raise
