"""A finished archive, read: `.mar` (zip), `.tar.gz`, or a folder."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

from ..errors import InputError
from ..files.tree import CHUNK, Tree, scan, walk
from ..text import printable
from . import tar_reader, zip_directory, zip_reader
from .formats import Kind
from .members import STORED, Damage, Fault, Index, Member, Refused, as_file, fault, part, unpacked

MANIFEST = "MAR-INF/MANIFEST.json"
PROVENANCE = "provenance.json"
"""What an archive of ours was made of."""

# What reading an archive raises for damage, and what zipfile raises for a zip file in it that makes no sense, or that
# it cannot read: of an encrypted member RuntimeError, of an unknown compression NotImplementedError.
DAMAGE = (OSError, EOFError, ValueError, RuntimeError, NotImplementedError, zlib.error, zipfile.BadZipFile)

LARGEST_TEXT = 64 << 20
"""Bytes of a file that is read as a whole."""


class Archive:
    """An archive at `path`, read as TorchServe reads it. Raises InputError if it is none, and Refused, which is one, if
    it could be read in two ways."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.kind, self._index = _index(path)
        except Fault as fault:
            raise Refused(path, fault.found) from None
        except (Damage, OSError) as error:
            raise _damaged(path, error) from None
        self._by_path = {member.path: member for member in self._index.members}
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
        return sorted(self._index.members, key=lambda member: member.path)

    def read(self, name: str) -> bytes:
        """A small file's bytes. Raises KeyError if there is no such file, InputError if it is damaged or large."""
        member = self._by_path[name]
        if member.size > LARGEST_TEXT:
            raise InputError(f"{self.path} holds a {name} of more than {LARGEST_TEXT >> 20} MiB, which is no text.")
        if name in self._index.kept:
            return self._index.kept[name]
        with self._readable(), self._stream(member) as stream:
            return stream.read()

    @contextmanager
    def _stream(self, member: Member) -> Iterator[IO[bytes]]:
        """A file's bytes, from its beginning to its end. Reading them raises Damage if they are not as they should."""
        if self.kind == "zip":
            with self.path.open("rb") as file:
                yield as_file(unpacked(file, member), member.size)
        elif self.kind == "tgz":
            for found, stream in tar_reader.streams(self.path, (member,)):
                assert found is member
                yield stream
        else:
            with (self.path / member.path).open("rb") as plain:
                yield plain

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
        except (Damage, OSError) as error:
            raise _damaged(self.path, error) from None

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
        """Unpack into `folder`, as TorchServe does; that folder. Raises InputError if the archive is damaged."""
        folder.mkdir(parents=True, exist_ok=True)
        for path in self._index.folders:
            (folder / path).mkdir(parents=True, exist_ok=True)
        where = ""
        try:
            for path, stream in self.streams():
                where, target = path, folder / path
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("wb") as out:
                    shutil.copyfileobj(stream, out, CHUNK)
        except Damage as damage:
            raise _damaged(self.path, damage, where) from None
        return folder

    @contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        """A file's bytes, to be read from any place. Raises KeyError if the archive has no such file.

        Compressed ones are unpacked into a temporary file: to go back in them would be to unpack them again.
        """
        member = self._by_path[name]
        if self.kind == "zip" and member.method == STORED:
            with self.path.open("rb") as whole:
                yield part(whole, member.place, member.size)
            return
        with self._stream(member) as stream:
            if self.kind == "no-archive":
                yield stream
                return
            with tempfile.TemporaryFile() as copy:
                shutil.copyfileobj(stream, copy, CHUNK)
                copy.seek(0)
                yield copy

    def streams(self) -> Iterator[tuple[str, IO[bytes]]]:
        """Every file in the archive's own order, each to be read before the next. Reading it raises one of DAMAGE if
        its bytes are not as they should be."""
        if self.kind == "tgz":
            for member, stream in tar_reader.streams(self.path, self._index.members):
                yield member.path, stream
            return
        for member in self._index.members:
            with self._stream(member) as stream:
                yield member.path, stream

    def verify(self) -> None:
        """Read everything. Raises InputError if the archive is damaged."""
        where = ""
        try:
            for path, stream in self.streams():
                where = path
                while stream.read(CHUNK):
                    pass
        except (Damage, OSError) as error:
            raise _damaged(self.path, error, where) from None


def _damaged(path: Path, error: Exception, where: str = "") -> InputError:
    about = f"{printable(where)}: " if where else ""
    if isinstance(error, OSError):
        return InputError(f"{path} cannot be read: {about}{error.strerror or error}.")
    return InputError(f"{path} is damaged: {about}{error}.", fix="Build it again, or copy it again.")


def _kind(path: Path) -> Kind:
    """What an archive is by its first bytes and its name. Raises InputError if it is none."""
    if not path.exists():
        raise InputError(f"{path} does not exist.", fix="Build it first: mar build configs/<task>.yaml.")
    if path.is_dir():
        return "no-archive"
    why = "It is a pipe or a device."
    if path.is_file():
        with path.open("rb") as file:
            start = file.read(4)
            # One with other bytes in front is refused with that reason.
            if start in (zip_directory.LOCAL, zip_directory.END) or zip_directory.has_end(file):
                return "zip"
        if start[:2] == b"\x1f\x8b" and path.name.endswith((".tar.gz", ".tgz")):
            return "tgz"
        why = "It was cut short by a copy or a full disk, or is another file."
    raise InputError(
        f"{path} is no archive: neither a zip file, nor a .tar.gz, nor a folder.",
        why,
        "Build it again, or copy it again.",
    )


def _index(path: Path) -> tuple[Kind, Index]:
    """The kind and the members, which are looked for once as long as the file is the same one."""
    kind = _kind(path)
    if kind == "no-archive":
        return kind, _folder(path)
    told = path.stat()
    return kind, _read(path, kind, (told.st_dev, told.st_ino, told.st_size, told.st_mtime_ns, told.st_ctime_ns))


@lru_cache(maxsize=8)
def _read(path: Path, kind: Kind, _file: tuple[int, ...]) -> Index:
    return zip_reader.index(path) if kind == "zip" else tar_reader.index(path, MANIFEST)


def _folder(path: Path) -> Index:
    """A folder's files. Raises Fault for what is neither a file nor a folder, and for links to folders, whose files no
    listing of this one shows."""
    members = []
    for file in sorted(path.rglob("*")):
        name = file.relative_to(path).as_posix()
        if file.is_file():
            size = file.stat().st_size
            members.append(Member(name, size, size))
        elif file.is_dir() and file.is_symlink():
            raise fault(
                name, "is a link to a folder, whose files are served and not checked", "Put the folder in its place."
            )
        elif file.exists() and not file.is_dir():
            raise fault(name, "is a pipe or a device, and not a file", "Put a file in its place.")
    return Index(tuple(members))


def digest(path: Path) -> str:
    """Hexadecimal SHA-256 of an archive: of the file, or of a folder's listing (`tree.Tree`)."""
    if path.is_dir():
        return Tree.of(scan(file, name) for file, name in walk(path)).digest
    return scan(path, path.name).sha256
