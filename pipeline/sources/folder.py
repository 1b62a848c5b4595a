"""A folder on this machine. Its files are read in place, and never copied. A folder from git or tar may have links to
any of the user's files: a link out of the folder is refused, except in the Hugging Face cache."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..cache.store import Store, key_of
from ..errors import InputError
from ..files.opening import is_utf8, opened
from ..model import card, checkpoint
from ..model.selection import card as card_of
from .source import LARGEST_TEXT, Fetched, NotReadYet, Progress

_COMMIT = re.compile(r"[0-9a-f]{40}")
_LARGE = 1 << 28
"""Bytes of a file of weights whose header is checked before all of it is read: a sparse file can have any size."""
DEEPEST = 3
"""The depth to which folders are searched: a checkpoint's files are not deeper."""


class Folder:
    """A checkpoint's folder, or a starter's. (A `Source`.)"""

    def __init__(self, store: Store, path: Path, where: str, provenance: Mapping[str, Any]) -> None:
        self.store, self.path, self.where = store, path, where
        self.may_fetch = False
        self._provenance = dict(provenance)
        self._sizes: dict[str, int] | None = None

    def sizes(self) -> Mapping[str, int]:
        if self._sizes is None:
            try:
                files = dict(_walk(self.path, DEEPEST))
            except OSError as error:
                raise _unreadable(self.path, error) from None
            self._sizes = {file.relative_to(self.path).as_posix(): size for file, size in files.items()}
        return self._sizes

    def text(self, path: str) -> str:
        try:
            return self._bytes(path).decode()
        except ValueError:
            raise InputError(
                f"{self.path / path} is not a text file.", fix="Restore it, or save the model again."
            ) from None

    def _bytes(self, path: str, most: int = LARGEST_TEXT) -> bytes:
        """The first `most` bytes of a file."""
        file = self._file(path)
        try:
            # The file may have been replaced by a link meanwhile.
            with opened(file, links=False) as stream:
                return stream.read(most)
        except OSError as error:
            raise _unreadable(file, error) from None

    def _file(self, path: str) -> Path:
        """The path of a file, with all links resolved. Raises InputError for a link out of the folder."""
        link = self.path / path
        try:
            file, home = link.resolve(strict=True), self.path.resolve(strict=True)
        except PermissionError as error:
            raise _unreadable(Path(error.filename or link), error) from None
        except (OSError, RuntimeError):  # before Python 3.13, circular links raise RuntimeError
            raise InputError(
                f"{link} is a broken link.",
                "A snapshot of the Hugging Face cache was copied without its blobs, or the link's target was removed.",
                "Copy the checkpoint again, with the targets of its links: cp -rL FROM TO",
            ) from None
        if not is_utf8(file):
            raise InputError(
                f"{file} has a path that is not UTF-8.",
                "A folder or a file in it was named on a system with another encoding.",
                "Rename it, or copy the checkpoint to another folder.",
            )
        # A starter's files are installed with the package: uv can install links into its cache.
        if file.is_relative_to(home) or _is_blob(file, home) or self._provenance["kind"] == "starter":
            return file
        raise InputError(
            f"{link} is a link out of the folder, to {file}.",
            "The link's target, which can be any file on this machine, would be packed into the archive.",
            f"If that is intended, copy the checkpoint with the target, and build the copy: cp -rL {self.path} COPY",
        )

    def license(self) -> str | None:
        if self._provenance["kind"] == "starter":
            return "Apache-2.0"  # as this package
        about = card_of(self.sizes())
        return card.license_in(self._bytes(about, card.HEAD).decode(errors="replace")) if about else None

    def identity(self, files: Mapping[str, str]) -> dict[str, Any]:
        digests = {}
        for name, path in files.items():
            known = self.store.digests.known(self._file(path))
            if known is None:
                raise NotReadYet(f"{path} is new, or changed since it was last read")
            digests[name] = known.sha256
        return {"files": digests}

    def provenance(self) -> dict[str, Any]:
        return dict(self._provenance)

    def fetch(self, files: Mapping[str, str], progress: Progress) -> list[Fetched]:
        total, done = sum(self.sizes()[path] for path in files.values()), 0

        def tick(count: int) -> None:
            nonlocal done
            done += count
            progress(f"reading {self.where}", done, total)

        # Concurrent builds read a folder once.
        with self.store.lock(key_of({"read": str(self.path)})):
            fetched = []
            for name, path in files.items():
                file = self._file(path)
                if path.endswith(".safetensors") and self.sizes()[path] > _LARGE:
                    checkpoint.tensors(file, path)
                entry = self.store.digests.read(file, path, tick, links=False)
                fetched.append(Fetched(entry=replace(entry, path=name), place=str(file)))
            return fetched


def _is_blob(file: Path, home: Path) -> bool:
    """Whether a file is a blob in the Hugging Face cache, and `home` is in a snapshot of the same repository:
    models--ORGANISATION--NAME/snapshots/COMMIT/..., whose files are links to models--ORGANISATION--NAME/blobs/ETAG."""
    for snapshot in (home, *home.parents[:DEEPEST]):
        repository = snapshot.parent.parent
        if snapshot.parent.name == "snapshots" and repository.name.startswith("models--"):
            return _COMMIT.fullmatch(snapshot.name) is not None and file.parent == repository / "blobs"
    return False


def _unreadable(path: Path, error: OSError) -> InputError:
    return InputError(
        f"{path} cannot be read: {error.strerror or error}.",
        "It belongs to another user, or its permissions keep you out." if isinstance(error, PermissionError) else "",
        "Change them (chmod, chown), or ask its owner to."
        if isinstance(error, PermissionError)
        else "Copy the checkpoint again.",
    )


def _walk(folder: Path, depth: int) -> Iterator[tuple[Path, int]]:
    """Every file in a folder, with its size in bytes; 0 for broken links and files that may not be read, which are
    errors once they are read."""
    with os.scandir(folder) as items:
        for item in items:
            try:
                if item.is_symlink() and not Path(item.path).exists():
                    yield Path(item.path), 0
                elif item.is_file():
                    yield Path(item.path), item.stat().st_size
                elif depth > 1 and item.is_dir() and not item.name.startswith("."):
                    yield from _walk(Path(item.path), depth - 1)
            except PermissionError:
                if not item.is_dir(follow_symlinks=False):  # an unreadable folder is not a part of the checkpoint
                    yield Path(item.path), 0
            except OSError:
                continue
