"""What is wrong with the members of an archive that can be read in one way only: what TorchServe's ZipUtils.java does
with it, and where its members end up. What cannot be read so is refused before (`members`, `zip_reader`,
`tar_reader`)."""

from __future__ import annotations

from pathlib import Path

from ..archive.findings import Finding, Findings
from ..archive.members import AGAIN
from ..archive.reader import Archive
from ..text import some


def findings(archive: Archive) -> Findings:
    """What is wrong with an archive's members."""
    if archive.kind == "zip":
        yield from _zip(archive)
    elif archive.kind == "tgz":
        yield from _tar(archive)
    else:
        yield from _folder(archive.path)
    yield from _capitals([member.path for member in archive.members()])


def _zip(archive: Archive) -> Findings:
    if archive.path.suffix != ".mar":
        yield Finding(
            "error",
            "",
            f"is a zip file called {archive.path.name}: TorchServe takes all but *.mar for .tar.gz, and cannot unpack "
            "it",
            "Rename it to end in .mar.",
        )
    for member in archive.members():
        if member.link:
            yield Finding(
                "warning",
                member.path,
                "is a symbolic link, and TorchServe writes a file with the link's text in its place",
                "Pack the file that it leads to.",
            )


def _tar(archive: Archive) -> Findings:
    names = [member.name for member in archive.members()]
    beside = [name for name in names if "/" not in name]
    roots = sorted({name.partition("/")[0] for name in names})
    if beside or len(roots) > 1:
        yield Finding(
            "error",
            "",
            f"holds {some(beside or roots)} at its root, where TorchServe wants one folder with all in it: it takes "
            "the first part off every path",
            AGAIN,
        )


def _folder(path: Path) -> Findings:
    root = path.resolve()
    for file in sorted(path.rglob("*")):
        if file.is_symlink() and not file.resolve().is_relative_to(root):
            yield Finding(
                "error",
                file.relative_to(path).as_posix(),
                "is a link that leads out of the archive's folder, to what nobody packed or recorded",
                "Put the file itself in its place.",
            )


def _capitals(paths: list[str]) -> Findings:
    folded: dict[str, str] = {}
    for path in paths:
        other = folded.setdefault(path.casefold(), path)
        if other != path:
            yield Finding(
                "warning",
                path,
                f"and {other} differ by capitals only: where a file system takes them for one, one of them is lost",
                "Rename one of them.",
            )
