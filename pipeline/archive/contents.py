"""The contents of an archive as data, for `mar inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import yaml
from .reader import PROVENANCE, Archive, digest

_LARGEST = 1 << 20  # bytes; larger files are not shown


def describe(path: Path) -> dict[str, Any]:
    """Name, version, digest, files, settings and provenance of an archive.

    `provenance` is None for archives from other tools. Raises InputError for a file that is not an archive, or damaged.
    """
    archive = Archive(path)
    model = archive.manifest["model"]
    members = archive.members()
    return {
        "name": archive.name,
        "version": model.get("modelVersion"),
        "path": str(path),
        "sha256": digest(path),
        "size": path.stat().st_size if path.is_file() else sum(member.size for member in members),
        "manifest": archive.manifest,
        "files": [{"path": member.path, "size": member.size, "stored": member.stored} for member in members],
        "settings": _settings(archive, model.get("configFile")),
        "requirements": _text(archive, model.get("requirementsFile")).splitlines(),
        "labels": archive.json("index_to_name.json"),
        "provenance": archive.json(PROVENANCE),
    }


def _text(archive: Archive, name: Any) -> str:
    """The text of a file that the manifest names; "" for None. Raises InputError if there is no such text."""
    if name is None:
        return ""
    try:
        data = archive.read(str(name))
        if len(data) > _LARGEST:
            raise ValueError
        return data.decode("utf-8-sig")
    except (KeyError, ValueError):
        raise InputError(
            f"{archive.path} has a manifest that names {name}, which is missing, too large, or not UTF-8.",
            fix="Build it again; mar check shows what else is wrong.",
        ) from None


def _settings(archive: Archive, name: Any) -> Any:
    if name is None:
        return {}
    document = yaml.parse(_text(archive, name))
    if document.data is None and document.problems:
        first = document.problems[0]
        raise InputError(
            f"{archive.path} has settings that cannot be read: {name}, line {first.line}: {first.message}.",
            fix="Build it again.",
        )
    return document.data
