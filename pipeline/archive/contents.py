"""What is in an archive, as data and as a tree of text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import yaml
from ..text import printable, size
from .reader import PROVENANCE, Archive, digest

# What a manifest says beside the name and version, in words.
_FACTS = {
    "handler": "handler",
    "serializedFile": "weights",
    "modelFile": "model's code",
    "configFile": "settings",
    "requirementsFile": "requirements",
}
_DEEPEST = 12  # mappings within mappings that are drawn
_LARGEST = 1 << 20  # bytes of a file that is shown


def describe(path: Path) -> dict[str, Any]:
    """Name, version, digest, files, settings and provenance of an archive. Raises InputError if it is none, or damaged.

    `provenance` is None where another tool made the archive.
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
    """A file that the manifest names; "" if it names none. Raises InputError if there is no such text."""
    if name is None:
        return ""
    try:
        data = archive.read(str(name))
        if len(data) > _LARGEST:
            raise ValueError
        return data.decode("utf-8-sig")
    except (KeyError, ValueError):
        raise InputError(
            f"{archive.path} has a manifest that names {name}, and holds no such text.",
            fix="Build it again; mar check tells what else is wrong.",
        ) from None


def _settings(archive: Archive, name: Any) -> Any:
    if name is None:
        return {}
    document = yaml.parse(_text(archive, name))
    if document.data is None and document.problems:
        first = document.problems[0]
        raise InputError(
            f"{archive.path} holds settings that cannot be read: {name}, line {first.line}: {first.message}.",
            fix="Build it again.",
        )
    return document.data


def show(found: dict[str, Any]) -> str:
    """`describe`'s result as a tree."""
    from io import StringIO

    from rich.console import Console
    from rich.tree import Tree

    root = Tree(printable(f"{found['name']} {found['version'] or ''}  {size(found['size'])}"))
    root.add(f"SHA-256 {found['sha256']}")
    _manifest(root, found["manifest"])
    _files(root.add(f"files ({len(found['files'])})"), found["files"])
    settings = found["settings"]
    if found["manifest"]["model"].get("configFile") is None:
        root.add("settings: none, so TorchServe's defaults")
    elif isinstance(settings, dict):
        _branch(root.add(f"settings ({printable(str(found['manifest']['model']['configFile']))})"), settings)
    else:
        root.add(printable(f"settings: {settings!r}, which is no mapping"))
    if found["requirements"]:
        branch = root.add("requirements")
        for line in found["requirements"]:
            branch.add(printable(line))
    if labels := found["labels"]:
        names = labels.values() if isinstance(labels, dict) else [labels]
        root.add(printable("labels: " + ", ".join(map(str, names))))
    provenance = found["provenance"]
    if isinstance(provenance, dict):
        branch = root.add("provenance")
        if why := provenance.get("unverified"):
            branch.add(printable(f"unverified: {why}"))
        for name in ("source", "checkpoint", "versions"):
            if isinstance(said := provenance.get(name, {}), dict):
                _branch(branch.add(name), said)
    else:
        root.add("provenance: none; another tool than this one made it")
    text = StringIO()
    Console(file=text, width=120, highlight=False, markup=False, emoji=False).print(root)
    return "\n".join(line.rstrip() for line in text.getvalue().rstrip().splitlines())


def _manifest(root: Any, manifest: dict[str, Any]) -> None:
    model, branch = manifest["model"], root.add("manifest")
    for key, words in _FACTS.items():
        if model.get(key) is not None:
            branch.add(printable(f"{words}: {model[key]}"))
    made = f"made {manifest.get('createdOn') or 'at no known time'}"
    branch.add(printable(f"{made} by torch-model-archiver {manifest.get('archiverVersion') or 'of no known version'}"))
    branch.add(printable(f"runtime: {manifest.get('runtime') or 'not given'}"))


def _files(root: Any, files: list[dict[str, Any]]) -> None:
    folders = {"": root}
    for file in files:
        *parts, name = file["path"].split("/")
        for depth in range(1, len(parts) + 1):
            folder = "/".join(parts[:depth])
            if folder not in folders:
                folders[folder] = folders["/".join(parts[: depth - 1])].add(printable(parts[depth - 1]) + "/")
        folders["/".join(parts)].add(f"{printable(name)}  {size(file['size'])}")


def _branch(branch: Any, values: dict[str, Any], depth: int = 0) -> None:
    for name, value in values.items():
        if isinstance(value, dict) and depth < _DEEPEST:
            _branch(branch.add(printable(str(name))), value, depth + 1)
        else:
            branch.add(printable(f"{name}: {value}"))
