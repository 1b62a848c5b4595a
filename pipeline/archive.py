"""A finished archive, read: `.mar` (zip), `.tar.gz`, or a folder."""

from __future__ import annotations

import hashlib
import json
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from .errors import InputError
from .tree import CHUNK, Tree, scan, walk

MANIFEST = "MAR-INF/MANIFEST.json"


@dataclass(frozen=True)
class Member:
    """A file of an archive: its path in it, and its size in bytes, unpacked and as stored."""

    path: str
    size: int
    stored: int


class Archive:
    """An archive at `path`. Raises InputError if it is none."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.exists():
            raise InputError(f"{path} does not exist.", fix="Build it first: mar build configs/<task>.yaml.")
        if path.is_dir():
            self.kind = "no-archive"
        elif zipfile.is_zipfile(path):
            self.kind = "zip"
        elif path.name.endswith((".tar.gz", ".tgz")) and tarfile.is_tarfile(path):
            self.kind = "tgz"
        else:
            raise InputError(
                f"{path} is no archive: neither a zip file, nor a .tar.gz, nor a folder.",
                "It was cut short by a copy or a full disk, or is another file.",
                "Build it again, or copy it again.",
            )
        try:
            self.manifest: dict[str, Any] = json.loads(self.read(MANIFEST))
        except KeyError:
            raise InputError(f"{path} holds no {MANIFEST}, so torch-model-archiver did not make it.") from None
        except (ValueError, OSError, zipfile.BadZipFile, tarfile.TarError) as error:
            raise InputError(f"{path} is damaged: {error}.", fix="Build it again, or copy it again.") from None

    @property
    def name(self) -> str:
        return str(self.manifest["model"]["modelName"])

    def members(self) -> list[Member]:
        """Every file, sorted by path."""
        if self.kind == "zip":
            with zipfile.ZipFile(self.path) as opened:
                return sorted(
                    (Member(i.filename, i.file_size, i.compress_size) for i in opened.infolist() if not i.is_dir()),
                    key=lambda member: member.path,
                )
        if self.kind == "tgz":
            with tarfile.open(self.path) as opened_tar:
                return sorted(
                    (Member(i.name.partition("/")[2], i.size, i.size) for i in opened_tar.getmembers() if i.isfile()),
                    key=lambda member: member.path,
                )
        return [Member(path, file.stat().st_size, file.stat().st_size) for file, path in walk(self.path)]

    def read(self, name: str) -> bytes:
        """A file's bytes. Raises KeyError if the archive has no such file."""
        if self.kind == "zip":
            with zipfile.ZipFile(self.path) as opened:
                return opened.read(name)
        if self.kind == "tgz":
            with tarfile.open(self.path) as opened_tar:
                for info in opened_tar:
                    if info.name.partition("/")[2] == name:
                        stream = opened_tar.extractfile(info)
                        assert stream is not None
                        return stream.read()
            raise KeyError(name)
        try:
            return (self.path / name).read_bytes()
        except FileNotFoundError:
            raise KeyError(name) from None

    def json(self, name: str) -> Any:
        """A JSON file's value, None if the archive has no such file."""
        try:
            return json.loads(self.read(name))
        except KeyError:
            return None

    def digests(self) -> dict[str, str]:
        """Hexadecimal SHA-256 of every file by its path, sorted. Raises InputError if the archive is damaged."""
        found = {}
        try:
            for path, stream in self._streams():
                sha = hashlib.sha256()
                while chunk := stream.read(CHUNK):
                    sha.update(chunk)
                found[path] = sha.hexdigest()
        except (OSError, EOFError, zlib.error, zipfile.BadZipFile, tarfile.TarError) as error:
            raise InputError(f"{self.path} is damaged: {error}.", fix="Build it again, or copy it again.") from None
        return dict(sorted(found.items()))

    def unpack(self, folder: Path) -> Path:
        """Unpack into `folder`, as TorchServe does; that folder. Raises InputError for a path that leads out."""
        folder.mkdir(parents=True, exist_ok=True)
        for path, stream in self._streams():
            if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
                raise InputError(f"{self.path} holds {path!r}, which leads out of its folder.")
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as out:
                shutil.copyfileobj(stream, out, CHUNK)
        return folder

    def _streams(self) -> Iterator[tuple[str, IO[bytes]]]:
        if self.kind == "zip":
            with zipfile.ZipFile(self.path) as opened:
                for info in opened.infolist():
                    if not info.is_dir():
                        with opened.open(info) as stream:
                            yield info.filename, stream
        elif self.kind == "tgz":
            with tarfile.open(self.path) as opened_tar:
                for member in opened_tar:
                    if member.isfile() and (found := opened_tar.extractfile(member)) is not None:
                        yield member.name.partition("/")[2], found
        else:
            for file, path in walk(self.path):
                with file.open("rb") as stream:
                    yield path, stream


def digest(path: Path) -> str:
    """Hexadecimal SHA-256 of an archive: of the file, or of a folder's listing (`tree.Tree`)."""
    if path.is_dir():
        return Tree.of(scan(file, name) for file, name in walk(path)).digest
    return scan(path, path.name).sha256
