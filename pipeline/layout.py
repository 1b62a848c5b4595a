"""Whether the server unpacks what an archive lists, and nowhere but in its own folder: names, kinds and places of the
members, as TorchServe's ZipUtils.java reads them (java.util.zip.ZipInputStream, commons-compress' tar reader)."""

from __future__ import annotations

import stat
import tarfile
import zipfile
from collections import Counter
from pathlib import Path, PurePosixPath

from .archive import DAMAGE, HEADER, Archive, header_size
from .findings import SHOWN, Finding, Findings, some
from .tree import walk

_AGAIN = "Build the archive again with mar build or torch-model-archiver."


def findings(archive: Archive) -> Findings:
    """What is wrong with an archive's members. Damage that keeps its listing from being read is left to others."""
    try:
        if archive.kind == "zip":
            yield from _zip(archive.path)
        elif archive.kind == "tgz":
            yield from _tar(archive.path)
        else:
            yield from _folder(archive.path)
    except DAMAGE:
        return


def _zip(path: Path) -> Findings:
    if path.suffix != ".mar":
        yield Finding(
            "error",
            "",
            f"is a zip file called {path.name}: TorchServe takes all but *.mar for .tar.gz, and cannot unpack it",
            "Rename it to end in .mar.",
        )
    with zipfile.ZipFile(path) as opened:
        infos = opened.infolist()
        names = [info.orig_filename for info in infos if not info.is_dir()]
        yield from _names(names)
        for info in infos:
            if why := _unreadable(info):
                yield Finding("error", info.filename, f"{why}, which TorchServe's reader cannot unpack", _AGAIN)
            if stat.S_ISLNK(info.external_attr >> 16):
                yield Finding(
                    "warning",
                    info.filename,
                    "is a symbolic link, and TorchServe writes a file with the link's text in its place",
                    "Pack the file that it leads to.",
                )
        yield from _gaps(path, infos, opened.start_dir)


def _unreadable(info: zipfile.ZipInfo) -> str:
    if info.flag_bits & 1:
        return "is encrypted"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return f"is compressed by method {info.compress_type}"
    if info.compress_type == zipfile.ZIP_STORED and info.flag_bits & 8 and not info.is_dir():
        return "is stored with its size behind it"
    return ""


def _gaps(path: Path, infos: list[zipfile.ZipInfo], end: int) -> Findings:
    """The server reads from the front, this program from the directory at the end: both must see the same members."""
    at = 0
    with path.open("rb") as stream:
        for info in sorted(infos, key=lambda info: info.header_offset):
            if info.header_offset != at:
                yield Finding(
                    "error",
                    info.filename,
                    "does not follow the member before it: TorchServe, which reads from the front, stops there or "
                    "unpacks what the archive's directory does not list",
                    _AGAIN,
                )
                return
            stream.seek(at)
            at += header_size(stream.read(HEADER)) + info.compress_size
            if info.flag_bits & 8:
                stream.seek(at)
                follows = stream.read(28)
                signed = follows.startswith(b"PK\7\b")
                # Sizes in four bytes or in eight: whichever ends where another record begins.
                short = 16 if signed else 12
                at += short if follows[short : short + 2] == b"PK" else short + 8
    if at != end:
        yield Finding(
            "error",
            "",
            f"holds {end - at} bytes behind its last member, unlisted in its directory, which TorchServe may unpack",
            _AGAIN,
        )


def _tar(path: Path) -> Findings:
    names, links, beside, roots = [], [], [], set()
    with tarfile.open(path) as opened:
        for info in opened:
            root, slash, name = info.name.partition("/")
            if info.isfile():
                names.append(name if slash else info.name)
                beside += [] if slash else [info.name]
                roots.add(root)
            elif not info.isdir():
                links.append(info.name)
    yield from _names(names)
    if beside or len(roots) > 1:
        yield Finding(
            "error",
            "",
            f"holds {some(beside or sorted(roots))} at its root, where TorchServe wants one folder with all in it: it "
            "takes the first part off every path",
            _AGAIN,
        )
    for name in links[:SHOWN]:
        yield Finding(
            "error",
            name,
            "is a link or a device, and TorchServe writes an empty file in its place",
            "Pack the file that it leads to.",
        )


def _folder(path: Path) -> Findings:
    root = path.resolve()
    yield from _names([name for _, name in walk(path)])
    for file in sorted(path.rglob("*")):
        if file.is_symlink() and not file.resolve().is_relative_to(root):
            yield Finding(
                "error",
                file.relative_to(path).as_posix(),
                "is a link that leads out of the archive's folder, to what nobody packed or recorded",
                "Put the file itself in its place.",
            )


def _names(names: list[str]) -> Findings:
    for name in [name for name in names if _leads_out(name)][:SHOWN]:
        yield Finding(
            "error",
            ascii(name)[1:-1],
            "leads out of the archive's folder: unpacked, it would be written over other files",
            "Do not use this archive unless you know who made it.",
        )
    counts = Counter(names)
    for name in [name for name, count in counts.items() if count > 1][:SHOWN]:
        yield Finding(
            "error",
            name,
            f"is in the archive {counts[name]} times: which of them is served depends on the program that unpacks it",
            _AGAIN,
        )
    folded: dict[str, str] = {}
    folders = {str(parent) for name in counts for parent in PurePosixPath(name).parents}
    for name in counts:
        other = folded.setdefault(name.casefold(), name)
        if other != name:
            yield Finding(
                "warning",
                name,
                f"and {other} differ by capitals only: where a file system takes them for one, one of them is lost",
                "Rename one of them.",
            )
        if name in folders:
            yield Finding(
                "error", name, "is a file, and a folder of the same name is there: it cannot be unpacked", _AGAIN
            )


def _leads_out(name: str) -> bool:
    parts = name.replace("\\", "/").split("/")
    return not name or name.startswith(("/", "\\")) or ".." in parts or parts[0][1:2] == ":" or "\0" in name
