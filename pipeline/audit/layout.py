"""Checks how TorchServe (ZipUtils.java) unpacks an archive: by which format, and to which paths. An archive that
programs may read differently was refused before (`members`, `zip_reader`, `tar_reader`)."""

from __future__ import annotations

from ..archive.findings import Finding, Findings
from ..archive.members import AGAIN
from ..archive.reader import Archive
from ..text import some


def findings(archive: Archive) -> Findings:
    """Findings on the container and the members of an archive."""
    yield from {"zip": _zip, "tgz": _tar, "no-archive": _folder}[archive.kind](archive)
    yield from _capitals([member.path for member in archive.members()])


def _zip(archive: Archive) -> Findings:
    if archive.path.suffix != ".mar":
        yield Finding(
            "error",
            "",
            f"is a zip file named {archive.path.name}: TorchServe reads all but *.mar as .tar.gz, and cannot unpack it",
            "Rename it to end in .mar.",
        )
    for member in archive.members():
        if member.link:
            yield Finding(
                "warning",
                member.path,
                "is a symbolic link: TorchServe writes a file with the link's target as its text",
                "Pack its target instead.",
            )


def _tar(archive: Archive) -> Findings:
    names = [member.name for member in archive.members()]
    beside = [name for name in names if "/" not in name]
    roots = sorted({name.partition("/")[0] for name in names})
    if beside or len(roots) > 1:
        yield Finding(
            "error",
            "",
            f"has {some(beside or roots)} at its root, where TorchServe expects one folder with everything in it: it "
            "drops the first part of every path",
            AGAIN,
        )


def _folder(archive: Archive) -> Findings:
    path, root = archive.path, archive.path.resolve()
    for file in sorted(path.rglob("*")):
        if file.is_symlink() and not file.resolve().is_relative_to(root):
            yield Finding(
                "error",
                file.relative_to(path).as_posix(),
                "is a link that leads out of the archive's folder, to a file that was neither packed nor recorded",
                "Replace the link with the file.",
            )


def _capitals(paths: list[str]) -> Findings:
    folded: dict[str, str] = {}
    for path in paths:
        other = folded.setdefault(path.casefold(), path)
        if other != path:
            yield Finding(
                "warning",
                path,
                f"and {other} differ only in case: on a case-insensitive file system, one of them is lost",
                "Rename one of them.",
            )
