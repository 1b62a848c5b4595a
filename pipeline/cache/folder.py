"""The folder that a cache lies in: whether it is a cache of ours, which names in it are ours, who can write to it.

A cache is marked by CACHEDIR.TAG (https://bford.info/cachedir/) with a line of our own. Nothing is ever removed but
what the cache itself named, by the patterns here, and never through a symbolic link.
"""

from __future__ import annotations

import os
import re
import shlex
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ..errors import InputError
from ..files import atomic

TAG = "CACHEDIR.TAG"
LOCK = "in-use.lock"
SIGNATURE = "Signature: 8a477f597d28d172789f06886806bc55"
"""The first line of every CACHEDIR.TAG, by its specification."""
OWNER = "# This folder is a cache of mar-pipeline."
_TEXT = f"{SIGNATURE}\n{OWNER}\n# All of it can be made again; `mar cache gc` removes what is not needed.\n"

_DIGEST = "[0-9a-f]{64}"
_UUID = "[0-9a-f]{32}"
_SPREAD = r"([0-9a-f]{2})/"  # files are spread over folders by the first two digits of their digest
_REST = r"\1[0-9a-f]{62}"

_PARTS: dict[str, tuple[str, str]] = {
    "blobs": (_SPREAD, _REST),
    "trees": (_SPREAD, rf"{_REST}\.json"),
    "keys": ("[a-z_]+/", rf"{_DIGEST}\.json"),
    "latest": ("", r"[a-z_]+-[0-9a-f]{24}\.json"),
    "facts": ("", "[0-9a-f]{24}"),
    "files": (_SPREAD, rf"{_REST}\.json"),
    "partial": ("", rf"{_DIGEST}\.incomplete"),
    "locks": ("", rf"{_DIGEST}\.lock"),
    "tmp": ("", _UUID),
    "compiler": ("", "[^/]+"),
}
"""A cache's folders: regular expressions of the folder in them, and of the names in that. Those of `tmp` and `compiler`
are folders, all others are files."""

_NOTES = ("trees", "keys", "latest", "facts", "files")
_FOLDERS = ("tmp", "compiler")
_USUAL = {"lost+found", ".snapshot", ".zfs"}
"""What a new file system, or one that a server exports, holds by itself."""

_BESIDE_TAG = re.compile(rf"\.{re.escape(TAG)}\.{_UUID}")  # as atomic.write_atomic names it


def paths(root: Path, part: str) -> Iterator[Path]:
    """What the cache itself named in one of its folders, sorted: files, or in `tmp` folders. Links are left out."""
    above, name = _PARTS[part]
    return _matching(root, part, above, name, folders=part in _FOLDERS)


def leftovers(root: Path) -> Iterator[Path]:
    """Notes that were not finished, as `atomic.write_atomic` names them."""
    for part in _NOTES:
        above, name = _PARTS[part]
        yield from _matching(root, part, above, rf"\.{name}\.{_UUID}")
    for item in _scan(root):
        if _BESIDE_TAG.fullmatch(item.name) and item.is_file(follow_symlinks=False):
            yield Path(item.path)


def _matching(root: Path, part: str, above: str, name: str, *, folders: bool = False) -> Iterator[Path]:
    pattern = re.compile(f"{part}/{above}{name}")
    places = [root / part] if not (root / part).is_symlink() else []
    if above:
        places = [Path(item.path) for place in places for item in _scan(place) if item.is_dir(follow_symlinks=False)]
    for place in places:
        for item in _scan(place):
            kind = item.is_dir(follow_symlinks=False) if folders else item.is_file(follow_symlinks=False)
            if kind and pattern.fullmatch(Path(item.path).relative_to(root).as_posix()):
                yield Path(item.path)


def _scan(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as items:
            return sorted(items, key=lambda item: item.name)
    except (FileNotFoundError, NotADirectoryError):
        return []


def leads_out(root: Path, path: Path) -> bool:
    """Whether a folder between the root and a path below it is a symbolic link."""
    between = path.relative_to(root).parents
    return any((root / folder).is_symlink() for folder in list(between)[:-1])


def check(root: Path) -> None:
    """Raises InputError for a place that is not a folder, or for a folder that holds something and is not a cache of
    ours: neither marked as one, nor a cache as it was before caches were marked. One that is not there will do."""
    try:
        names = {item.name for item in root.iterdir()} - _USUAL
    except FileNotFoundError:
        if root.is_symlink():
            raise _unusable(root, "is a link to a folder that is not there") from None
        return
    except OSError as error:
        raise InputError(
            f"The cache cannot be at {root}: {error.strerror}.",
            fix="Use --cache, or MAR_CACHE, for a folder that can be read and written to.",
        ) from None
    if names and not is_marked(root) and not _is_unmarked_cache(root, names):
        strange = sorted(name for name in names if name not in _PARTS) or sorted(names)
        more = f", and {len(strange) - 3} more" if len(strange) > 3 else ""
        raise _unusable(root, f"holds other files ({', '.join(strange[:3])}{more}), and no cache of mar-pipeline")
    if links := sorted(name for name in names & {*_PARTS, LOCK, TAG} if (root / name).is_symlink()):
        raise InputError(
            f"The cache cannot be at {root}: {links[0]} in it is a symbolic link.",
            "What a link leads to may be somebody's own files, and a cache removes files.",
            "Remove the link, or use --cache, or MAR_CACHE, for another folder.",
        )


def _unusable(root: Path, what: str) -> InputError:
    return InputError(
        f"The cache cannot be at {root}: it {what}.",
        "A cache removes files by itself, so it has a folder of its own.",
        "Use --cache, or MAR_CACHE, for a folder that is new or empty.",
    )


def is_marked(root: Path) -> bool:
    """Whether the folder has our CACHEDIR.TAG. Another tool's is not ours."""
    tag = root / TAG
    try:
        if not stat.S_ISREG(tag.lstat().st_mode):
            return False
        with tag.open("rb") as stream:
            lines = stream.read(1000).decode("utf-8", "replace").splitlines()
    except OSError:
        return False
    return lines[:1] == [SIGNATURE] and OWNER in lines


def _is_unmarked_cache(root: Path, names: set[str]) -> bool:
    """Whether a folder is laid out as caches were before they were marked: an empty lock, and nothing but our names."""
    try:
        lock = (root / LOCK).lstat()
    except OSError:
        return False
    ours = all(name in _PARTS or name == LOCK or _BESIDE_TAG.fullmatch(name) for name in names)
    return ours and stat.S_ISREG(lock.st_mode) and lock.st_size == 0


def mark(root: Path) -> None:
    """Mark a folder that `check` took for a cache, as far as it can be written to."""
    if not is_marked(root):
        with atomic.if_writable():
            atomic.write_atomic(root / TAG, _TEXT)


# Who else can write to it


def risk(root: Path) -> str | None:
    """That others can put files into a cache, whose code would run in builds, and the command that mends it; None if
    they cannot. Of each folder above it and in it, owners and rights are looked at; access lists are not."""
    try:
        home = root.resolve(strict=True)
        above = [folder for folder in home.parents if _open_to(folder.stat(), above=True)]
        inside = [folder for folder in _folders(home) if _open_to(folder.stat(), above=False)]
    except OSError:
        return None
    found = [*inside[:1], *above[:1]]
    if not found:
        return None
    first, mends = found[0], []
    if inside:
        mends.append(_mend(inside, home, recursive=True))
    if above:
        mends.append(_mend(above, above[0], recursive=False))
    return (
        f"Others can write to the cache at {root} ({first}: {_open_to(first.stat(), above=first in above)}), "
        f"and what is put there runs in your builds.\n         To mend it: {'; '.join(mends)}"
    )


def _mend(found: list[Path], where: Path, *, recursive: bool) -> str:
    option, place = ("-R " if recursive else ""), shlex.quote(str(where))
    if any(_foreign(folder.stat()) for folder in found):
        if recursive:
            return f"sudo chown -R {os.geteuid()} {place} && chmod -R go-w {place}"
        return "use --cache for a folder below your home"
    return f"chmod {option}go-w {place}"


def _folders(home: Path) -> Iterator[Path]:
    """The cache's folder and those in it where notes and blobs lie; alone, if nobody else can enter it."""
    yield home
    if home.stat().st_mode & 0o011:
        for part in _PARTS:
            if (home / part).is_dir():
                yield home / part
                yield from (Path(item.path) for item in _scan(home / part) if item.is_dir(follow_symlinks=False))


def _foreign(found: os.stat_result) -> bool:
    return found.st_uid not in (0, os.geteuid())


def _open_to(found: os.stat_result, *, above: bool) -> str:
    """Who else can write to a folder; empty if nobody. In a sticky folder above it others can add, but not rename."""
    if _foreign(found):
        return f"it belongs to user {found.st_uid}"
    sticky = above and found.st_mode & stat.S_ISVTX
    if found.st_mode & stat.S_IWOTH and not sticky:
        return f"mode {stat.S_IMODE(found.st_mode):04o}, anybody"
    if found.st_mode & stat.S_IWGRP and not sticky and not _own_group(found.st_gid):
        return f"mode {stat.S_IMODE(found.st_mode):04o}, group {found.st_gid}"
    return ""


def _own_group(gid: int) -> bool:
    """Whether a group is the user's private one, of the user's name and nobody else's; or root's, with nobody else in
    it. Containers run as users that their image has no names for: there a group of the user's own number is private."""
    import grp
    import pwd

    me, user, members = os.geteuid(), None, None
    with suppress(KeyError):
        user = pwd.getpwuid(me)
    with suppress(KeyError):
        group = grp.getgrgid(gid)
        members = set(group.gr_mem) - {"root", user.pw_name if user else "root"}
        if user is not None and gid == user.pw_gid and group.gr_name == user.pw_name:
            return not members
    return not members if gid == 0 else user is None and members is None and gid == me
