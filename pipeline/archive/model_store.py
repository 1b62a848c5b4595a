"""The output folder: the archives in its model store, its checksums, and writing its small files atomically.

config/config.properties, model-store/NAME.mar, reports/NAME.json, SHA256SUMS
"""

from __future__ import annotations

import fcntl
import os
import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from ..files import waiting
from ..files.opening import read_bytes, read_text
from .formats import SUFFIXES

FOLDER = "model-store"
PROPERTIES = Path("config", "config.properties")
SUMS = "SHA256SUMS"

TEMPORARY = re.compile(r"\.mar-[0-9a-f]{32}")
"""Names of files and folders that are being written, or were left behind by a killed build."""
_CLOCK_WRONG = 3600
"""Seconds. A file dated further in the future than this is the result of a wrong clock; `date_after` ignores it."""


def archives(out: Path) -> list[str]:
    """The archives in the output folder's model store: file or folder names, sorted."""
    folder = out / FOLDER
    if not folder.is_dir():
        return []
    return sorted(
        item.name
        for item in folder.iterdir()
        if (item.name.endswith(SUFFIXES) and item.is_file()) or (item / "MAR-INF").is_dir()
    )


def sum_lines(sums: Mapping[str, str]) -> str:
    """SHA-256 by path as `sha256sum` writes them, sorted by path."""
    return "".join(f"{sha}  {path}\n" for path, sha in sorted(sums.items()))


def read_sums(out: Path) -> dict[str, dict[str, str]]:
    """The lines of SUMS (path -> SHA-256) by archive, those of other files under ""; empty if SUMS cannot be read."""
    try:
        return _parsed(read_text(out / SUMS))
    except (OSError, UnicodeDecodeError):
        return {}


@lru_cache(maxsize=1)
def _parsed(text: str) -> dict[str, dict[str, str]]:
    sums: dict[str, dict[str, str]] = {}
    for line in text.splitlines():
        sha, _, path = line.partition("  ")
        top, _, rest = path.partition("/")
        if re.fullmatch(r"[0-9a-f]{64}", sha) and not leads_out(path):
            sums.setdefault(rest.partition("/")[0] if top == FOLDER else "", {})[path] = sha
    return sums


def leads_out(path: str) -> bool:
    """Whether a path in SUMS is none of a file below the output folder, as a build writes it."""
    return bool({"", ".", ".."} & set(path.split("/"))) or not path.isprintable() or "\\" in path


def renew(out: Path, name: str, text: str) -> None:
    """Write a text file of the output folder atomically; leave it alone if it has this text already."""
    target, beside = out / name, temporary(out)
    if reads(target, text):
        return
    target.parent.mkdir(exist_ok=True)
    try:
        beside.write_text(text, encoding="utf-8")
        date_after(beside, target)
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)


def foreign_sums(out: Path) -> list[str]:
    """The paths in SUMS that lead out of the output folder: their lines are dropped when it is written again."""
    try:
        lines = (out / SUMS).read_text(encoding="utf-8").splitlines() if (out / SUMS).is_file() else []
    except (OSError, UnicodeDecodeError):
        return []
    paths = [line.partition("  ")[2] for line in lines if re.match(r"[0-9a-f]{64}  ", line)]
    return [path for path in paths if leads_out(path)]


@contextmanager
def folder_lock(out: Path, tell: Callable[[str], None] = lambda _: None) -> Iterator[None]:
    """Lock the output folder: one build writes to it at a time, also between builds with different caches. `tell` gets
    a line about a process that is waited for."""
    folder = os.open(out, os.O_RDONLY | os.O_DIRECTORY)
    try:
        waiting.acquire(folder, fcntl.LOCK_EX, f"another build that writes to {out}", tell)
        yield
    finally:
        os.close(folder)


def reads(file: Path, text: str) -> bool:
    content = text.encode()
    return file.is_file() and file.stat().st_size == len(content) and read_bytes(file, len(content)) == content


def temporary(out: Path) -> Path:
    """A new name in the output folder, for a file or folder that is renamed when it is complete."""
    return out / f".mar-{uuid.uuid4().hex}"


def date_after(new: Path, old: Path) -> None:
    """Make the mtime of `new` later than that of `old`, which it replaces, in whole seconds: rsync compares those."""
    try:
        before = old.lstat().st_mtime_ns // 10**9
    except OSError:
        return
    if 0 <= before - new.stat().st_mtime_ns // 10**9 <= _CLOCK_WRONG:
        os.utime(new, (time.time(), before + 1))
