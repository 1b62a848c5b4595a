"""The output folder, laid out as TorchServe and KServe mount it:

config/config.properties, model-store/NAME.mar, reports/NAME.json, SHA256SUMS
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from .environment import passed
from .packing import Member, write
from .server_settings import config_properties
from .stage import Build
from .stages.archive import SUFFIXES, filename
from .stages.verify import REPORT
from .store import key_of
from .tree import Entry, walk

NAME = "model_store"
FOLDER = "model-store"
PROPERTIES = Path("config", "config.properties")
SUMS = "SHA256SUMS"

_BESIDE = ".mar-"
"""How the names of folders begin that are being filled, and of those that a killed build left."""

# linux/fs.h: _IOW(0x94, 9, int); shares a file's blocks on file systems that can (Btrfs, XFS).
_FICLONE = 0x40049409
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # linux/fcntl.h, linux/fs.h


def archives(out: Path) -> list[str]:
    """What is in the output folder's model store: file or folder names, sorted."""
    folder = out / FOLDER
    if not folder.is_dir():
        return []
    return sorted(
        item.name for item in folder.iterdir() if item.name.endswith((".mar", ".tar.gz")) or (item / "MAR-INF").is_dir()
    )


def _files(build: Build) -> list[Entry]:
    """The archive's entries, with paths in the output folder."""
    return [Entry(f"{FOLDER}/{e.path}", e.sha256, e.size, e.crc32) for e in build.trees["archive"]]


def status(build: Build) -> tuple[str, tuple[str, ...]]:
    """The key of what the output folder should hold for this build, and why it does not (empty if it does)."""
    wanted = {entry.path: entry.sha256 for entry in _files(build)}
    key = key_of({"stage": NAME, "files": wanted, "report": build.trees["verify"].digest})
    reasons = []
    for entry in _files(build):
        if not _holds(build, entry):
            reasons.append(f"{entry.path} is {'another one' if (build.out / entry.path).exists() else 'not there'}")
    for path, text in _texts(build).items():
        file = build.out / path
        if not file.is_file() or file.read_text(encoding="utf-8") != text:
            reasons.append(f"{path} is {'out of date' if file.exists() else 'not there'}")
    others = [name for name in _others(build) if (build.out / FOLDER / name).exists()]
    reasons += [f"{FOLDER}/{name} is the same model in another format" for name in others]
    return key, tuple(reasons)


def _holds(build: Build, entry: Entry) -> bool:
    """Whether the output folder has the file: a link to the store's, or one that is known from before."""
    file = build.out / entry.path
    try:
        if file.samefile(build.store.blob(entry.sha256)):
            return build.store.locate(entry, {}) is not None
    except OSError:
        pass
    known = build.store.known(file)
    return known is not None and known.sha256 == entry.sha256


def _others(build: Build) -> list[str]:
    name = build.config.archive.name
    return [name + suffix for suffix in sorted(set(SUFFIXES.values())) if name + suffix != filename(build)]


def _texts(build: Build) -> dict[str, str]:
    """The small files, as they should be once the archive is in its place."""
    names = tuple(sorted((set(archives(build.out)) | {filename(build)}) - set(_others(build))))
    report = build.find("verify", REPORT)
    assert report is not None
    return {
        f"reports/{build.config.archive.name}.json": report.read_text(encoding="utf-8"),
        PROPERTIES.as_posix(): _properties(names, tuple(passed())),
        SUMS: _sums(build, names),
    }


@lru_cache(maxsize=1)
def _properties(names: tuple[str, ...], more: tuple[str, ...]) -> str:
    return config_properties(names, passed=more)


def _sums(build: Build, names: tuple[str, ...]) -> str:
    """Lines for `sha256sum --check`, of every archive in the model store, a folder's files one each, and of what was
    put beside it. What has its lines keeps them: they say what the files should be."""
    before = read_sums(build.out)
    lines = {path: sha for path, sha in before.get("", {}).items() if (build.out / path).is_file()}
    for name in names:
        if name == filename(build):
            lines.update((entry.path, entry.sha256) for entry in _files(build))
        else:
            lines.update(before.get(name) or _read(build, name))
    return sum_lines(lines)


def sum_lines(sums: Mapping[str, str]) -> str:
    """SHA-256 by path as `sha256sum` writes them, sorted by path."""
    return "".join(f"{sha}  {path}\n" for path, sha in sorted(sums.items()))


def read_sums(out: Path) -> dict[str, dict[str, str]]:
    """The lines of SUMS, path -> SHA-256, of each archive, and of all that is none under ""; nothing without SUMS."""
    try:
        return _parsed((out / SUMS).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return {}


def _read(build: Build, name: str) -> dict[str, str]:
    """The digests of an archive's files that another tool put there."""
    item = build.out / FOLDER / name
    files = [file for file, _ in walk(item)] if item.is_dir() else [item]
    paths = [(file, file.relative_to(build.out).as_posix()) for file in files]
    return {path: build.store.read(file, path).sha256 for file, path in paths}


@lru_cache(maxsize=1)
def _parsed(text: str) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for line in text.splitlines():
        sha, _, path = line.partition("  ")
        top, _, rest = path.partition("/")
        if re.fullmatch(r"[0-9a-f]{64}", sha) and path and top not in ("", ".."):
            found.setdefault(rest.partition("/")[0] if top == FOLDER else "", {})[path] = sha
    return found


def place(build: Build, *, forced: bool = False) -> bool:
    """Bring the archive and what belongs to it into the output folder, each renamed into its place; False if another
    build has done so just now."""
    build.out.mkdir(parents=True, exist_ok=True)
    with held(build.out):
        if not forced and not status(build)[1]:
            return False
        for left in build.out.glob(f"{_BESIDE}*"):
            _remove(left)
        beside = build.out / f"{_BESIDE}{uuid.uuid4().hex}"
        try:
            for entry in build.trees["archive"]:
                _put(build.store.blob(entry.sha256), beside / entry.path, entry)
            target = build.out / FOLDER / filename(build)
            target.parent.mkdir(exist_ok=True)
            _move(beside / filename(build), target)
            for name in _others(build):
                _remove(build.out / FOLDER / name)
            for entry in _files(build):
                build.store.know(build.out / entry.path, entry)
            for path, text in _texts(build).items():
                written = beside / "text"
                written.write_text(text, encoding="utf-8")
                (build.out / path).parent.mkdir(exist_ok=True)
                written.replace(build.out / path)
        finally:
            _remove(beside)
    return True


@contextmanager
def held(out: Path) -> Iterator[None]:
    """The output folder, for one build at a time, whatever cache it has."""
    folder = os.open(out, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _put(source: Path, target: Path, entry: Entry) -> None:
    """Share the file's blocks, or link it, or copy it: whichever the file systems can."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with source.open("rb") as old, target.open("wb") as new:
        try:
            fcntl.ioctl(new.fileno(), _FICLONE, old.fileno())
            return
        except OSError:
            pass
    target.unlink()
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP):
            raise
        write(target, Member(entry, source), lambda _: None)


def _move(new: Path, target: Path) -> None:
    """Rename over what is there. A folder cannot be replaced so, but the two can change places."""
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
