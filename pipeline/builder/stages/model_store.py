"""The output folder, laid out as TorchServe and KServe mount it:

config/config.properties, model-store/NAME.mar, reports/NAME.json, SHA256SUMS

Each file is dated when it is written. One that replaces another gets a later date, in whole seconds, so that tools that
copy by size and date copy it. A file that is there already with the same bytes stays as it is.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
import time
from functools import lru_cache
from pathlib import Path
from typing import Final

from ...archive.formats import FORMATS
from ...archive.model_store import (
    FOLDER,
    PROPERTIES,
    SUMS,
    TEMPORARY,
    archives,
    date_after,
    folder_lock,
    foreign_sums,
    read_sums,
    reads,
    renew,
    sum_lines,
    temporary,
)
from ...archive.writer import Member, Wrong, write
from ...cache.store import SEALED, Damaged, key_of
from ...errors import MarError, StageError
from ...files.tree import Entry, walk
from ...host.environment import passed
from ...serving.properties import config_properties
from ...text import some
from ..build import Build, Inputs
from ..stage import FileProblem, Placing
from . import replaced
from .verify import REPORT

NAME: Final = "model_store"

# linux/fs.h: _IOW(0x94, 9, int); shares a file's blocks on file systems that can (Btrfs, XFS).
_FICLONE = 0x40049409
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # linux/fcntl.h, linux/fs.h


def _files(inputs: Inputs) -> list[Entry]:
    """The archive's entries, with paths in the output folder."""
    return [Entry(f"{FOLDER}/{e.path}", e.sha256, e.size, e.crc32) for e in inputs.tree("archive")]


def status(inputs: Inputs) -> tuple[str, dict[str, FileProblem]]:
    """The key of what the output folder should hold for this build, and the files that are not so, by their paths."""
    build = inputs.build
    wanted = {entry.path: entry.sha256 for entry in _files(inputs)}
    key = key_of({"stage": NAME, "files": wanted, "report": inputs.tree("verify").digest})
    problems: dict[str, FileProblem] = {}
    for entry in _files(inputs):
        if not _holds(build, entry):
            problems[entry.path] = "differs" if (build.out / entry.path).exists() else "absent"
    for path, text in _texts(inputs).items():
        file = build.out / path
        if not reads(file, text):
            problems[path] = "outdated" if file.exists() else "absent"
    others = [name for name in _others(build) if (build.out / FOLDER / name).exists()]
    return key, problems | {f"{FOLDER}/{name}": "other_format" for name in others}


def _holds(build: Build, entry: Entry) -> bool:
    """Whether the output folder has the file, by its digest: known from before, or read now. A file with a blob's date
    does not count: earlier versions linked the cache's own files, and it has to get a date of its own."""
    file = build.out / entry.path
    try:
        stat = file.stat()
        if not file.is_file() or stat.st_size != entry.size or stat.st_mtime_ns == SEALED:
            return False
        return build.store.digests.read(file, entry.path).sha256 == entry.sha256
    except (OSError, StageError):  # gone, or being written to
        return False


def _others(build: Build) -> list[str]:
    name = build.config.archive.name
    return [
        name + suffix for suffix in sorted({row.suffix for row in FORMATS.values()}) if name + suffix != build.filename
    ]


def _texts(inputs: Inputs) -> dict[str, str]:
    """The small files, as they should be once the archive is in its place."""
    build = inputs.build
    names = tuple(sorted((set(archives(build.out)) | {build.filename}) - set(_others(build))))
    report = inputs.find("verify", REPORT)
    assert report is not None
    return {
        f"reports/{build.config.archive.name}.json": report.read_text(encoding="utf-8"),
        PROPERTIES.as_posix(): _properties(names, tuple(passed())),
        SUMS: _sums(inputs, names),
    }


@lru_cache(maxsize=1)
def _properties(names: tuple[str, ...], more: tuple[str, ...]) -> str:
    return config_properties(names, passed=more)


def _sums(inputs: Inputs, names: tuple[str, ...]) -> str:
    """Lines for `sha256sum --check`: of every archive in the model store (of a folder, each file), and of files beside
    it. Lines that are there already stay, since they say what the files should be."""
    build = inputs.build
    before = read_sums(build.out)
    lines = {path: sha for path, sha in before.get("", {}).items() if (build.out / path).is_file()}
    for name in names:
        if name == build.filename:
            lines.update((entry.path, entry.sha256) for entry in _files(inputs))
        else:
            lines.update(before.get(name) or _read(build, name))
    return sum_lines(lines)


def _read(build: Build, name: str) -> dict[str, str]:
    """The digests of an archive's files that another tool put there."""
    item = build.out / FOLDER / name
    files = [file for file, _ in walk(item)] if item.is_dir() else [item]
    paths = [(file, file.relative_to(build.out).as_posix()) for file in files]
    return {path: build.store.digests.read(file, path).sha256 for file, path in paths}


def place(inputs: Inputs, forced: bool) -> bool:
    """Put the archive and what belongs to it into the output folder, each renamed into its place; False if another
    build has done so just now. Warns if an archive of another model is replaced. Raises StageError if something that is
    not an archive is in the way, Damaged."""
    build = inputs.build
    if not inputs.is_intact("archive"):
        raise Damaged(f"the archive {build.config.archive.name}")
    build.out.mkdir(parents=True, exist_ok=True)
    with folder_lock(build.out, build.store.warn):
        if not forced and not status(inputs)[1]:
            return False
        _sweep(build.out)
        target = build.out / FOLDER / build.filename
        there = not forced and all(_holds(build, entry) for entry in _files(inputs))
        others = [build.out / FOLDER / name for name in _others(build) if _exists(build.out / FOLDER / name)]
        going = [*([] if there or not _exists(target) else [target]), *others]
        warnings = [_leave(inputs, path) for path in going]
        beside = temporary(build.out)
        try:
            if not there:
                for entry in inputs.tree("archive"):
                    _put(build, entry, beside / entry.path, forced=forced)
            for text in filter(None, warnings):
                build.store.warn(text)
            if not there:
                target.parent.mkdir(exist_ok=True)
                _move(beside / build.filename, target)
            for path in others:
                _remove(path)
            for entry in _files(inputs):
                build.store.digests.know(build.out / entry.path, entry)
            replaced.remember(inputs)
            if dropped := foreign_sums(build.out):
                build.store.warn(
                    f"Lines of {build.out / SUMS} are dropped, since they name no file below it: {some(dropped)}"
                )
            for name, text in _texts(inputs).items():
                renew(build.out, name, text)
        finally:
            _remove(beside)
    return True


def _exists(path: Path) -> bool:
    return path.exists() or path.is_symlink()


def _sweep(out: Path) -> None:
    """Remove what killed builds left."""
    for item in list(out.iterdir()):
        if TEMPORARY.fullmatch(item.name) and not item.is_symlink():
            _remove(item)


def _leave(inputs: Inputs, path: Path) -> str | None:
    """A warning about what is replaced at `path` in the model store, if it needs one. Raises StageError if that neither
    is an archive nor was put there by a build: a folder, or a file that has the same name in another format."""
    try:
        return replaced.warning(inputs, path)
    except (MarError, OSError):
        if path.name in read_sums(inputs.build.out):
            return None  # it was ours, and is damaged
    build = inputs.build
    if path.name != build.filename or path.is_dir():
        raise StageError(
            f"{path} is in the way, and is not an archive.",
            f"The archive {build.filename} takes the place of every other that is called {build.config.archive.name}.",
            "Move it elsewhere, or give the archive another name: --name NAME (archive.name).",
        )
    return f"{path} could not be read as an archive, and is replaced by {build.filename} of {build.config.model.name}."


def _put(build: Build, entry: Entry, target: Path, *, forced: bool) -> None:
    """Write a file of the archive to `target`, to be renamed over the one that is there: with the same date if that has
    the same bytes, else with a later one. Raises Damaged."""
    before = build.out / FOLDER / entry.path
    same = _holds(build, Entry(f"{FOLDER}/{entry.path}", entry.sha256, entry.size, entry.crc32))
    target.parent.mkdir(parents=True, exist_ok=True)
    if same and not forced and not before.is_symlink():
        try:
            os.link(before, target)  # of a folder of which other files change; the old one goes
            return
        except OSError:
            pass
    _copy(build, entry, target)
    if same:
        os.utime(target, ns=(time.time_ns(), before.stat().st_mtime_ns))
    else:
        date_after(target, before)


def _copy(build: Build, entry: Entry, target: Path) -> None:
    """Share a blob's blocks where the file system can, else copy it and check its CRC-32. Never a link, since all blobs
    have one date. Raises Damaged."""
    blob = build.store.blob(entry.sha256)
    with blob.open("rb") as old, target.open("wb") as new:
        try:
            fcntl.ioctl(new.fileno(), _FICLONE, old.fileno())
            return
        except OSError:
            pass
    try:
        write(target, Member(entry, blob), lambda _: None)
    except Wrong:
        build.store.intact(entry)
        raise Damaged(entry.path) from None


def _move(new: Path, target: Path) -> None:
    """Rename over what is there. A folder cannot be renamed over, but the two can be exchanged."""
    if not target.is_dir() and not (new.is_dir() and target.exists()):
        new.replace(target)
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(_AT_FDCWD, bytes(new), _AT_FDCWD, bytes(target), _RENAME_EXCHANGE):
        # An old system, or a file system that cannot: for a moment there is none.
        target.rename(new.with_name(f"{new.name}.old"))
        new.replace(target)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


# The last of the inputs that are missing is the one that a plan names: it waits for the archive first.
STAGE = Placing(name=NAME, inputs=("download", "serialize", "handler", "verify", "archive"), status=status, place=place)
