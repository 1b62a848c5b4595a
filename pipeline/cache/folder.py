"""The cache's folder: whether it is a cache of this program, which file names belong to it, and who can write to it.

A CACHEDIR.TAG (https://bford.info/cachedir/) with a line of this program marks a cache. Only files whose names match
the patterns here are ever removed, and never through a symbolic link.
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
from ..files.opening import is_utf8, opened

TAG = "CACHEDIR.TAG"
LOCK = "in-use.lock"
SIGNATURE = "Signature: 8a477f597d28d172789f06886806bc55"
"""The first line of every CACHEDIR.TAG, by its specification."""
OWNER = "# This folder is a cache of mar-pipeline."
_TEXT = f"{SIGNATURE}\n{OWNER}\n# All of it can be made again; `mar cache gc` removes what is not needed.\n"

_DIGEST = "[0-9a-f]{64}"
_UUID = "[0-9a-f]{32}"
_SPREAD = r"([0-9a-f]{2})/"  # the first two digits of the digest name a subfolder
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
"""A cache's folders: regular expressions of their subfolder, and of the names in it. The items of `tmp` and `compiler`
are folders, all others are files."""

_NOTES = ("trees", "keys", "latest", "facts", "files")
_FOLDERS = ("tmp", "compiler")
_USUAL = {"lost+found", ".snapshot", ".zfs"}
"""Folders that a new or exported file system contains by default."""

_BESIDE_TAG = re.compile(rf"\.{re.escape(TAG)}\.{_UUID}")  # the temporary name of atomic.write_atomic


def paths(root: Path, part: str) -> Iterator[Path]:
    """The cache's own items in one of its folders, sorted: folders in `tmp` and `compiler`, else files. Links are
    skipped."""
    above, name = _PARTS[part]
    return _matching(root, part, above, name, folders=part in _FOLDERS)


def leftovers(root: Path) -> Iterator[Path]:
    """Unfinished notes, under the temporary names of `atomic.write_atomic`."""
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
    """Raises InputError unless `root` can be a cache: a missing folder, an empty one, one that is marked as a cache, or
    one with the layout of a cache of a version that did not mark them."""
    if not is_utf8(root.absolute()):
        raise InputError(
            f"The cache cannot be at {root}: its path is not UTF-8.",
            "Libraries that read models cannot open files there.",
            "Use --cache, or MAR_CACHE, for another folder.",
        )
    try:
        names = {item.name for item in root.iterdir()} - _USUAL
    except FileNotFoundError:
        if root.is_symlink():
            raise _unusable(root, "is a link to a folder that does not exist") from None
        return
    except OSError as error:
        raise InputError(
            f"The cache cannot be at {root}: {error.strerror}.",
            fix="Use --cache, or MAR_CACHE, for a folder that can be read and written to.",
        ) from None
    if names and not is_marked(root) and not _is_unmarked_cache(root, names):
        strange = sorted(name for name in names if name not in _PARTS) or sorted(names)
        more = f", and {len(strange) - 3} more" if len(strange) > 3 else ""
        raise _unusable(root, f"has other files ({', '.join(strange[:3])}{more}) and is not a cache of mar-pipeline")
    if links := sorted(name for name in names & {*_PARTS, LOCK, TAG} if (root / name).is_symlink()):
        raise InputError(
            f"The cache cannot be at {root}: {links[0]} in it is a symbolic link.",
            "The link may lead to files that are not the cache's, and a cache removes files.",
            "Remove the link, or use --cache, or MAR_CACHE, for another folder.",
        )


def _unusable(root: Path, what: str) -> InputError:
    return InputError(
        f"The cache cannot be at {root}: it {what}.",
        "A cache removes files by itself, so it needs a folder of its own.",
        "Use --cache, or MAR_CACHE, for a folder that is new or empty.",
    )


def is_marked(root: Path) -> bool:
    """Whether the folder has a CACHEDIR.TAG of this program."""
    tag = root / TAG
    try:
        with opened(tag, links=False) as stream:
            lines = stream.read(1000).decode("utf-8", "replace").splitlines()
    except OSError:
        return False
    return lines[:1] == [SIGNATURE] and OWNER in lines


def _is_unmarked_cache(root: Path, names: set[str]) -> bool:
    """Whether a folder has the layout of an unmarked cache of earlier versions: an empty lock, and only known names."""
    try:
        lock = (root / LOCK).lstat()
    except OSError:
        return False
    ours = all(name in _PARTS or name == LOCK or _BESIDE_TAG.fullmatch(name) for name in names)
    return ours and stat.S_ISREG(lock.st_mode) and lock.st_size == 0


def mark(root: Path) -> None:
    """Mark a folder that `check` accepted as a cache, if it is writable."""
    if not is_marked(root):
        with atomic.if_writable():
            atomic.write_atomic(root / TAG, _TEXT)


# Who else can write to it


def risk(root: Path) -> str | None:
    """A warning if other users can write to the cache, whose code runs in builds, with the command that prevents it;
    else None. Checks owners and modes of the folders in and above the cache, but no access control lists."""
    try:
        home = root.resolve(strict=True)
        above = [folder for folder in home.parents if _other_writers(folder.stat(), above=True)]
        inside = [folder for folder in _folders(home) if _other_writers(folder.stat(), above=False)]
    except OSError:
        return None
    open_folders = [*inside[:1], *above[:1]]
    if not open_folders:
        return None
    first, commands = open_folders[0], []
    if inside:
        commands.append(_repair_command(inside, home, recursive=True))
    if above:
        commands.append(_repair_command(above, above[0], recursive=False))
    return (
        f"Others can write to the cache at {root} ({first}: {_other_writers(first.stat(), above=first in above)}), "
        f"and code in it runs in your builds.\nTo fix it: {'; '.join(commands)}"
    )


def _repair_command(folders: list[Path], where: Path, *, recursive: bool) -> str:
    option, place = ("-R " if recursive else ""), shlex.quote(str(where))
    if any(_foreign(folder.stat()) for folder in folders):
        if recursive:
            return f"sudo chown -R {os.geteuid()} {place} && chmod -R go-w {place}"
        return "use --cache for a folder below your home"
    return f"chmod {option}go-w {place}"


def _folders(home: Path) -> Iterator[Path]:
    """The cache's folder and its subfolders; only the former if nobody else can enter it."""
    yield home
    if home.stat().st_mode & 0o011:
        for part in _PARTS:
            if (home / part).is_dir():
                yield home / part
                yield from (Path(item.path) for item in _scan(home / part) if item.is_dir(follow_symlinks=False))


def _foreign(status: os.stat_result) -> bool:
    return status.st_uid not in (0, os.geteuid())


def _other_writers(status: os.stat_result, *, above: bool) -> str:
    """Who else can write to a folder; "" if nobody. In a sticky folder `above` the cache, others can add, not
    rename."""
    if _foreign(status):
        return f"it belongs to user {status.st_uid}"
    sticky = above and status.st_mode & stat.S_ISVTX
    if status.st_mode & stat.S_IWOTH and not sticky:
        return f"mode {stat.S_IMODE(status.st_mode):04o}, anybody"
    if status.st_mode & stat.S_IWGRP and not sticky and not _own_group(status.st_gid):
        return f"mode {stat.S_IMODE(status.st_mode):04o}, group {status.st_gid}"
    return ""


def _own_group(gid: int) -> bool:
    """Whether a group has no other members: the user's private group, named after the user, or root's.

    In a container whose user has no name, the group with the user's own number counts as private.
    """
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
