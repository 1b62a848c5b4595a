"""A finished archive, read: `.mar` (zip), `.tar.gz`, or a folder."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from .errors import InputError
from .tree import CHUNK, Tree, scan, walk

MANIFEST = "MAR-INF/MANIFEST.json"
PROVENANCE = "provenance.json"
"""What an archive of ours was made of."""

# What zipfile, tarfile and gzip raise for bytes that make no sense, or that they cannot read: of an encrypted member
# RuntimeError, of a compression that they do not know NotImplementedError.
DAMAGE = (
    OSError,
    EOFError,
    ValueError,
    RuntimeError,
    NotImplementedError,
    zlib.error,
    zipfile.BadZipFile,
    tarfile.TarError,
)

LARGEST_TEXT = 64 << 20
"""Bytes of a file that is read as a whole."""


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
        self._kept: dict[str, bytes] = {}
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
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path} is damaged: {error}.", fix="Build it again, or copy it again.") from None
        if not isinstance(self.manifest, dict) or not isinstance(self.manifest.get("model"), dict):
            raise InputError(
                f"{path} has a {MANIFEST} that names no model.", fix="Make the archive again with torch-model-archiver."
            )

    @property
    def name(self) -> str:
        """The manifest's name of the model, else the archive's own."""
        return str(self.manifest["model"].get("modelName") or self.path.name.partition(".")[0])

    def members(self) -> list[Member]:
        """Every file, sorted by path."""
        with self._readable():
            return sorted(self._members(), key=lambda member: member.path)

    def _members(self) -> list[Member]:
        if self.kind == "zip":
            with zipfile.ZipFile(self.path) as opened:
                return [Member(i.filename, i.file_size, i.compress_size) for i in opened.infolist() if not i.is_dir()]
        if self.kind == "tgz":
            with tarfile.open(self.path) as opened_tar:
                return [Member(i.name.partition("/")[2], i.size, i.size) for i in opened_tar if i.isfile()]
        return [Member(path, file.stat().st_size, file.stat().st_size) for file, path in walk(self.path)]

    def read(self, name: str) -> bytes:
        """A small file's bytes. Raises KeyError if there is no such file, InputError if it is damaged or large."""
        with self._readable():
            if self.kind == "zip":
                with zipfile.ZipFile(self.path) as opened, opened.open(name) as stream:
                    data = stream.read(LARGEST_TEXT + 1)
            elif self.kind == "tgz":
                data = self._read_tar(name)
            else:
                with self._plain(name) as stream:
                    data = stream.read(LARGEST_TEXT + 1)
        if len(data) > LARGEST_TEXT:
            raise InputError(f"{self.path} holds a {name} of more than {LARGEST_TEXT >> 20} MiB, which is no text.")
        return data

    def _read_tar(self, name: str) -> bytes:
        """A file of a .tar.gz; small ones are kept on the way, since each look at it unpacks it from its beginning."""
        if name in self._kept:
            return self._kept[name]
        room = LARGEST_TEXT - sum(len(data) for data in self._kept.values())
        with tarfile.open(self.path) as opened_tar:
            for info in opened_tar:
                path = info.name.partition("/")[2]
                if path == name and (stream := opened_tar.extractfile(info)):
                    return stream.read(LARGEST_TEXT + 1)
                if (
                    path not in self._kept
                    and info.size <= min(room, CHUNK)
                    and (stream := opened_tar.extractfile(info))
                ):
                    self._kept[path] = stream.read()
                    room -= info.size
        raise KeyError(name)

    def _plain(self, name: str) -> IO[bytes]:
        """A file of a folder, open. Raises KeyError if it has no such file; one beside the folder is none of its."""
        file = self.path / name
        if not file.is_relative_to(self.path) or ".." in file.relative_to(self.path).parts:
            raise KeyError(name)
        try:
            return file.open("rb")
        except (FileNotFoundError, IsADirectoryError):
            raise KeyError(name) from None

    def json(self, name: str) -> Any:
        """A JSON file's value, None if the archive has no such file. Raises InputError if it is no JSON."""
        try:
            return json.loads(self.read(name))
        except KeyError:
            return None
        except (ValueError, RecursionError) as error:
            raise InputError(f"{self.path} holds a {name} that is no JSON: {error}.", fix="Build it again.") from None

    @contextmanager
    def _readable(self) -> Iterator[None]:
        """Raises InputError for what a damaged archive raises."""
        try:
            yield
        except DAMAGE as error:
            said = str(error).rstrip(".") or type(error).__name__
            raise InputError(f"{self.path} is damaged: {said}.", fix="Build it again, or copy it again.") from None

    def digests(self) -> dict[str, str]:
        """Hexadecimal SHA-256 of every file by its path, sorted. Raises InputError if the archive is damaged."""
        found = {}
        with self._readable():
            for path, stream in self.streams():
                sha = hashlib.sha256()
                while chunk := stream.read(CHUNK):
                    sha.update(chunk)
                found[path] = sha.hexdigest()
        return dict(sorted(found.items()))

    def unpack(self, folder: Path) -> Path:
        """Unpack into `folder`, as TorchServe does; that folder. Raises InputError for a path that leads out."""
        folder.mkdir(parents=True, exist_ok=True)
        for path, stream in self.streams():
            if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
                raise InputError(f"{self.path} holds {path!r}, which leads out of its folder.")
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as out:
                shutil.copyfileobj(stream, out, CHUNK)
        return folder

    @contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        """A file's bytes, to be read from any place. Raises KeyError if the archive has no such file.

        Compressed ones are unpacked into a temporary file: to go back in them would be to unpack them again.
        """
        if self.kind == "no-archive":
            with self._plain(name) as plain:
                yield plain
            return
        if self.kind == "zip":
            with zipfile.ZipFile(self.path) as opened:
                info = opened.getinfo(name)
            if info.compress_type == zipfile.ZIP_STORED and not info.flag_bits & 1:
                with self.path.open("rb") as whole:
                    yield io.BufferedReader(_Part(whole, info))
                return
        for path, stream in self.streams():
            if path == name:
                with tempfile.TemporaryFile() as copy:
                    shutil.copyfileobj(stream, copy, CHUNK)
                    copy.seek(0)
                    yield copy
                return
        raise KeyError(name)

    def streams(self) -> Iterator[tuple[str, IO[bytes]]]:
        """Every file in the archive's own order, each to be read before the next; a path twice if it is there twice.
        Raises one of DAMAGE."""
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


HEADER = 30
"""Bytes that a zip file has in front of each member, before the member's name and extra field (APPNOTE.TXT 4.3.7)."""


def header_size(header: bytes) -> int:
    """How far behind its header's beginning a member's own bytes begin, by the header's first HEADER bytes."""
    return HEADER + int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")


class _Part(io.RawIOBase):
    """The bytes of a zip file's member that is stored as it is, in the open zip file."""

    def __init__(self, whole: IO[bytes], info: zipfile.ZipInfo) -> None:
        self._whole, self._size, self._at = whole, info.file_size, 0
        whole.seek(info.header_offset)
        header = whole.read(HEADER)
        if header[:4] != b"PK\3\4":
            raise zipfile.BadZipFile(f"no member begins where {info.filename} should")
        self._start = info.header_offset + header_size(header)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, place: int, whence: int = 0) -> int:
        self._at = max(0, place + (0, self._at, self._size)[whence])
        return self._at

    def readinto(self, buffer: Any) -> int:
        self._whole.seek(self._start + self._at)
        data = self._whole.read(max(0, min(len(buffer), self._size - self._at)))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def digest(path: Path) -> str:
    """Hexadecimal SHA-256 of an archive: of the file, or of a folder's listing (`tree.Tree`)."""
    if path.is_dir():
        return Tree.of(scan(file, name) for file, name in walk(path)).digest
    return scan(path, path.name).sha256
