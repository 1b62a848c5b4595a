"""Reads a finished archive: a `.mar` (zip), a `.tar.gz`, or a folder."""

from __future__ import annotations

import hashlib
import shlex
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

from ..errors import InputError, StageError
from ..files import pointers, strict_json
from ..files.opening import LARGEST_JSON, opened
from ..files.tree import CHUNK, Tree, scan, walk
from ..text import printable
from ..text import size as bytes_of
from . import tar_reader, zip_directory, zip_reader
from .formats import Kind
from .members import MOST, STORED, Damage, Fault, Index, Member, Refused, as_file, fault, part, unpacked

MANIFEST = "MAR-INF/MANIFEST.json"
PROVENANCE = "provenance.json"
"""What an archive was built from; only archives of this program have it."""

# What reading a damaged archive raises, and what zipfile raises for a malformed zip file in it: RuntimeError for an
# encrypted member, NotImplementedError for an unknown compression.
DAMAGE = (OSError, EOFError, ValueError, RuntimeError, NotImplementedError, zlib.error, zipfile.BadZipFile)

LARGEST_TEXT = LARGEST_JSON
"""The most bytes of a file that `Archive.read` returns."""


class Archive:
    """The archive at `path`, read as TorchServe reads it. Raises InputError if the file is not an archive, and its
    subclass Refused if TorchServe may read it differently."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.kind, self._index = _index(path)
        except Fault as fault:
            raise Refused(path, fault.findings) from None
        except (Damage, OSError) as error:
            raise _damaged(path, error) from None
        self._by_path = {member.path: member for member in self._index.members}
        try:
            self.manifest: dict[str, Any] = strict_json.loads(self.read(MANIFEST))
        except KeyError:
            instead = "Name the archive itself; those of a build are in the folder model-store."
            if "config.json" in self._by_path:
                instead = f"If it is a model's folder, build its archive: mar build --model {shlex.quote(str(path))}"
            raise InputError(
                f"{path} has no {MANIFEST}: it is not an archive of torch-model-archiver.", fix=instead
            ) from None
        except ValueError as error:
            raise InputError(f"{path} is damaged: {error}.", fix="Build it again, or copy it again.") from None
        if not isinstance(self.manifest, dict) or not isinstance(self.manifest.get("model"), dict):
            raise InputError(
                f"{path} has a {MANIFEST} that names no model.", fix="Make the archive again with torch-model-archiver."
            )

    @property
    def name(self) -> str:
        """The model's name in the manifest, else the archive's file name up to the first dot."""
        return str(self.manifest["model"].get("modelName") or self.path.name.partition(".")[0])

    def members(self) -> list[Member]:
        """Every file, sorted by path."""
        return sorted(self._index.members, key=lambda member: member.path)

    def read(self, name: str) -> bytes:
        """A small file's bytes. Raises KeyError if there is no such file, InputError if it is damaged or large."""
        member = self._by_path[name]
        if member.size > LARGEST_TEXT:
            raise InputError(
                f"{self.path} has a {name} of {member.size:,} bytes, and it may have {LARGEST_TEXT:,}.",
                fix="Make the archive again with a smaller one.",
            )
        if name in self._index.contents:
            return self._index.contents[name]
        with self._readable(), self._stream(member) as stream:
            return stream.read()

    @contextmanager
    def _stream(self, member: Member) -> Iterator[IO[bytes]]:
        """A file's bytes as a sequential stream. Reading it raises Damage if they do not match the archive's
        metadata."""
        if self.kind == "zip":
            with opened(self.path) as file:
                yield as_file(unpacked(file, member), member.size)
        elif self.kind == "tgz":
            for current, stream in tar_reader.streams(self.path, (member,)):
                assert current is member
                yield stream
        else:
            assert self.kind == "no-archive"
            with opened(self.path / member.path) as plain:
                yield plain

    def json(self, name: str) -> Any:
        """A JSON file's value, None if the archive has no such file. Raises InputError if it is not JSON."""
        try:
            return strict_json.loads(self.read(name))
        except KeyError:
            return None
        except ValueError as error:
            raise InputError(f"{self.path} has a {name} that is not JSON: {error}.", fix="Build it again.") from None

    @contextmanager
    def _readable(self) -> Iterator[None]:
        """Turn the errors of a damaged archive into InputError."""
        try:
            yield
        except (Damage, OSError) as error:
            raise _damaged(self.path, error) from None

    def digests(self) -> dict[str, str]:
        """Hexadecimal SHA-256 of every file by its path, sorted. Raises InputError if the archive is damaged."""
        digests = {}
        with self._readable():
            for path, stream in self.streams():
                sha = hashlib.sha256()
                while chunk := stream.read(CHUNK):
                    sha.update(chunk)
                digests[path] = sha.hexdigest()
        return dict(sorted(digests.items()))

    def unpack(self, folder: Path) -> Path:
        """Unpack into `folder` as TorchServe does, and return it. Raises InputError if the archive is damaged, and
        StageError if the disk has too little room."""
        folder.mkdir(parents=True, exist_ok=True)
        self._refuse_full(folder)
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

    def _refuse_full(self, folder: Path) -> None:
        """Raises StageError if the disk of `folder` has too little room for the unpacked archive."""
        size, free = sum(member.size for member in self._index.members), shutil.disk_usage(folder).free
        if size > free:
            raise StageError(
                f"The disk is full: {self.path} unpacks to {bytes_of(size)}, and {folder} has {bytes_of(free)} left.",
                fix="Free some space (mar cache gc), or use --cache for another disk.",
            )

    @contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        """A file as a seekable stream. Raises KeyError if the archive has no such file.

        A compressed one is unpacked into a temporary file first: seeking back would mean to decompress it again.
        """
        member = self._by_path[name]
        if self.kind == "zip" and member.method == STORED:
            with opened(self.path) as whole:
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
        """Every file (path, stream) in the archive's own order; read each before the next. Reading raises one of DAMAGE
        if its bytes do not match the archive's metadata."""
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
        fix = "Make it readable for this user." if isinstance(error, PermissionError) else "Copy it again."
        return InputError(f"{path} cannot be read: {about}{error.strerror or error}.", fix=fix)
    return InputError(f"{path} is damaged: {about}{error}.", fix="Build it again, or copy it again.")


def _kind(path: Path) -> Kind:
    """The kind of an archive by its first bytes and its name. Raises InputError if it is not an archive."""
    if not path.exists():
        raise InputError(f"{path} does not exist.", fix="Check its path, or build it: mar build CONFIG")
    if path.is_dir():
        return "no-archive"
    why = "It is a pipe or a device."
    if path.is_file():
        with opened(path) as file:
            start = file.read(4)
            # A zip file with other bytes in front is refused later, with that reason.
            if start in (zip_directory.LOCAL, zip_directory.END) or zip_directory.has_end(file):
                return "zip"
            file.seek(0)
            pointers.refuse(file.read(pointers.LONGEST), str(path))
        if start[:2] == b"\x1f\x8b" and path.name.endswith((".tar.gz", ".tgz")):
            return "tgz"
        why = "It was truncated by a copy or a full disk, or is a different file."
    if path.suffix in (".yaml", ".yml"):
        raise InputError(f"{path} is not an archive.", fix=f"If it is a config, build it: mar build {path}")
    raise InputError(
        f"{path} is not an archive: neither a zip file, nor a .tar.gz, nor a folder.",
        why,
        "Build it again, or copy it again.",
    )


def _index(path: Path) -> tuple[Kind, Index]:
    """The kind and the members of an archive; cached while the file stays the same."""
    kind = _kind(path)
    if kind == "no-archive":
        return kind, _folder(path)
    stat = path.stat()
    return kind, _read(path, kind, (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns))


@lru_cache(maxsize=8)
def _read(path: Path, kind: Kind, _file: tuple[int, ...]) -> Index:
    if kind == "tgz":
        return tar_reader.index(path, MANIFEST)
    assert kind == "zip"
    return zip_reader.index(path)


def _folder(path: Path) -> Index:
    """A folder's files. Raises Fault for what is neither a file nor a folder, and for links to folders: their files are
    not in this listing."""
    members = []
    for file in path.rglob("*"):
        name = file.relative_to(path).as_posix()
        if file.is_file():
            size = file.stat().st_size
            members.append(Member(name, size, size))
        elif file.is_dir() and file.is_symlink():
            raise fault(
                name,
                "is a link to a folder, whose files are served but not checked",
                "Replace the link with the folder.",
            )
        elif file.exists() and not file.is_dir():
            raise fault(name, "is a pipe or a device, not a file", "Put a file in its place.")
        if len(members) > MOST:
            raise fault("", f"has more than {MOST} files, the most that are read", "Pack fewer files.")
    return Index(tuple(sorted(members, key=lambda member: member.path)))


def digest(path: Path) -> str:
    """Hexadecimal SHA-256 of an archive: of the file, or of the listing of a folder (`tree.Tree`)."""
    if path.is_dir():
        return Tree.of(scan(file, name) for file, name in walk(path)).digest
    return scan(path, path.name).sha256
