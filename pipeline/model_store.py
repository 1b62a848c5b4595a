"""The output folder, laid out as TorchServe and KServe mount it:

config/config.properties, model-store/NAME.mar, reports/NAME.json, SHA256SUMS
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import uuid
from pathlib import Path

from .server_settings import config_properties
from .stage import Build
from .stages.archive import SUFFIXES, filename
from .stages.verify import REPORT
from .store import key_of, write_atomic
from .tree import Entry, walk

NAME = "model_store"
FOLDER = "model-store"
PROPERTIES = Path("config", "config.properties")
SUMS = "SHA256SUMS"

# linux/fs.h: _IOW(0x94, 9, int); shares a file's blocks on file systems that can (Btrfs, XFS).
_FICLONE = 0x40049409


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
        known = build.store.known(build.out / entry.path)
        if known is None or known.sha256 != entry.sha256:
            reasons.append(f"{entry.path} is {'not there' if not (build.out / entry.path).exists() else 'another one'}")
    for path, text in _texts(build).items():
        file = build.out / path
        if not file.is_file() or file.read_text(encoding="utf-8") != text:
            reasons.append(f"{path} is {'out of date' if file.exists() else 'not there'}")
    others = [name for name in _others(build) if (build.out / FOLDER / name).exists()]
    reasons += [f"{FOLDER}/{name} is the same model in another format" for name in others]
    return key, tuple(reasons)


def _others(build: Build) -> list[str]:
    name = build.config.archive.name
    return [name + suffix for suffix in sorted(set(SUFFIXES.values())) if name + suffix != filename(build)]


def _texts(build: Build) -> dict[str, str]:
    """The small files, as they should be once the archive is in its place."""
    names = sorted((set(archives(build.out)) | {filename(build)}) - set(_others(build)))
    report = build.find("verify", REPORT)
    assert report is not None
    return {
        f"reports/{build.config.archive.name}.json": report.read_text(encoding="utf-8"),
        PROPERTIES.as_posix(): config_properties(names),
        SUMS: _sums(build, names),
    }


def _sums(build: Build, names: list[str]) -> str:
    """Lines for `sha256sum --check`, of every archive in the store; a folder's files have a line each."""
    ours = {entry.path: entry.sha256 for entry in _files(build)}
    lines = {}
    for name in names:
        if name == filename(build):
            lines.update(ours)
            continue
        item = build.out / FOLDER / name
        files = [file for file, _ in walk(item)] if item.is_dir() else [item]
        for file in files:
            path = file.relative_to(build.out).as_posix()
            lines[path] = build.store.read(file, path).sha256
    return "".join(f"{sha}  {path}\n" for path, sha in sorted(lines.items()))


def place(build: Build) -> None:
    """Bring the archive and what belongs to it into the output folder, each renamed into its place."""
    build.out.mkdir(parents=True, exist_ok=True)
    with build.store.lock(key_of({"out": str(build.out.resolve())})):
        beside = build.out / f".{uuid.uuid4().hex}"
        try:
            for entry in build.trees["archive"]:
                _put(build.store.blob(entry.sha256), beside / entry.path)
            target = build.out / FOLDER / filename(build)
            target.parent.mkdir(exist_ok=True)
            if target.is_dir():
                # A folder cannot be replaced by a rename: the old one steps aside first.
                target.rename(build.out / f"{beside.name}.old")
            (beside / filename(build)).replace(target)
            for name in _others(build):
                _remove(build.out / FOLDER / name)
            for entry in _files(build):
                build.store.know(build.out / entry.path, entry)
            for path, text in _texts(build).items():
                write_atomic(build.out / path, text)
        finally:
            _remove(beside)
            _remove(build.out / f"{beside.name}.old")


def _put(source: Path, target: Path) -> None:
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
        shutil.copyfile(source, target)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
