"""What is in an archive, as data and as a tree of text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from .archive import Archive, digest
from .console import size


def describe(path: Path) -> dict[str, Any]:
    """Name, version, digest, files, settings and provenance of an archive. Raises InputError if it is none."""
    archive = Archive(path)
    model = archive.manifest["model"]
    members = archive.members()
    config_file = model.get("configFile")
    return {
        "name": archive.name,
        "version": model.get("modelVersion"),
        "path": str(path),
        "sha256": digest(path),
        "size": path.stat().st_size if path.is_file() else sum(member.size for member in members),
        "manifest": archive.manifest,
        "files": [{"path": member.path, "size": member.size, "stored": member.stored} for member in members],
        "settings": yaml.safe_load(archive.read(config_file)) if config_file else {},
        "labels": archive.json("index_to_name.json"),
        "provenance": archive.json("provenance.json"),
    }


def show(found: dict[str, Any]) -> str:
    """`describe`'s result as a tree."""
    from io import StringIO

    from rich.console import Console
    from rich.tree import Tree

    root = Tree(f"{found['name']} {found['version'] or ''}  {size(found['size'])}")
    root.add(f"SHA-256 {found['sha256']}")
    files = root.add("files")
    folders: dict[str, Tree] = {}
    for file in found["files"]:
        folder, _, name = file["path"].rpartition("/")
        if folder and folder not in folders:
            folders[folder] = files.add(folder + "/")
        (folders[folder] if folder else files).add(f"{name}  {size(file['size'])}")
    _branch(root.add("settings (model-config.yaml)"), found["settings"])
    if found["labels"]:
        root.add("labels: " + ", ".join(found["labels"].values()))
    provenance = found["provenance"]
    if provenance:
        branch = root.add("provenance")
        for name in ("source", "checkpoint", "versions"):
            _branch(branch.add(name), provenance.get(name, {}))
    text = StringIO()
    Console(file=text, width=120, highlight=False, markup=False, emoji=False).print(root)
    return text.getvalue().rstrip()


def _branch(branch: Any, values: dict[str, Any]) -> None:
    for name, value in values.items():
        if isinstance(value, dict):
            _branch(branch.add(str(name)), value)
        else:
            branch.add(f"{name}: {value}")
