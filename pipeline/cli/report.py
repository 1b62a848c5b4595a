"""What commands print about an archive: the summary of a build, and the tree of `mar inspect`."""

from __future__ import annotations

import sys
from io import StringIO
from typing import TYPE_CHECKING, Any

from ..text import printable, seconds, size, table
from . import console

if TYPE_CHECKING:
    from ..builder.session import ArchiveReport

# A manifest's keys, apart from name and version, and how `mar inspect` names them.
_FACTS = {
    "handler": "handler",
    "serializedFile": "weights",
    "modelFile": "model's code",
    "configFile": "settings",
    "requirementsFile": "requirements",
}
_DEEPEST = 12  # nested mappings that are drawn as branches; deeper ones are printed on one line


def summary(archive: ArchiveReport) -> None:
    """Print the summary of a built archive; `archive` is what `--json` prints for it."""
    print(f"\n{archive['path']}")
    how = "answers like the original model" if archive["verified"] else f"unverified: {archive['unverified']}"
    print(f"  {size(archive['size'])}, {how}")
    print(f"  SHA-256 {archive['sha256']}")
    if archive["source"]["kind"] != "starter":
        print(f"  from {_origin(archive['source'])}{' (locked)' if archive['locked'] else ''}")
    print(f"  licence {archive['source'].get('license') or 'not stated'}")
    rows = [
        [f"  {stage['stage']}", "cached" if stage["cached"] else "done", seconds(stage["seconds"])]
        for stage in archive["stages"]
    ]
    print(table(["  stage", "", "time"], rows))


def _origin(source: dict[str, Any]) -> str:
    """A model's source in a few words; an adapter's base model follows it."""
    base = f", over {_origin(source['base'])}" if "base" in source else ""
    if source["kind"] == "hub":
        return f"{source['repo']} at {source['commit'][:12]}{base}"
    if source["kind"] == "mlflow":
        return f"{source['model']}, version {source['version']}{base}"
    return f"{source.get('url', 'a folder')}{base}"


def tree(description: dict[str, Any]) -> str:
    """The result of `archive.contents.describe`, drawn as a tree."""
    from rich.console import Console
    from rich.tree import Tree

    manifest = description["manifest"]
    root = Tree(printable(f"{description['name']} {description['version'] or ''}  {size(description['size'])}"))
    root.add(f"SHA-256 {description['sha256']}")
    _manifest(root, manifest)
    _files(root.add(f"files ({len(description['files'])})"), description["files"])
    settings = description["settings"]
    if manifest["model"].get("configFile") is None:
        root.add("settings: none; TorchServe's defaults apply")
    elif isinstance(settings, dict):
        _branch(root.add(f"settings ({printable(str(manifest['model']['configFile']))})"), settings)
    else:
        root.add(printable(f"settings: {settings!r}, which is not a mapping"))
    if description["requirements"]:
        branch = root.add("requirements")
        for line in description["requirements"]:
            branch.add(printable(line))
    if labels := description["labels"]:
        names = labels.values() if isinstance(labels, dict) else [labels]
        root.add(printable("labels: " + ", ".join(map(str, names))))
    provenance = description["provenance"]
    if isinstance(provenance, dict):
        branch = root.add("provenance")
        if why := provenance.get("unverified"):
            branch.add(printable(f"unverified: {why}"))
        for name in ("source", "checkpoint", "tokenizer", "versions"):
            if isinstance(values := provenance.get(name, {}), dict):
                _branch(branch.add(name), values)
    else:
        root.add("provenance: none; another tool made this archive")
    text = StringIO() if console.draws(sys.stdout) else _Ascii()
    Console(file=text, width=120, highlight=False, markup=False, emoji=False).print(root)
    return "\n".join(line.rstrip() for line in text.getvalue().rstrip().splitlines())


class _Ascii(StringIO):
    """A text in which rich draws with ASCII characters only."""

    encoding = "ascii"


def _manifest(root: Any, manifest: dict[str, Any]) -> None:
    model, branch = manifest["model"], root.add("manifest")
    for key, words in _FACTS.items():
        if model.get(key) is not None:
            branch.add(printable(f"{words}: {model[key]}"))
    created, version = manifest.get("createdOn"), manifest.get("archiverVersion")
    maker = f"torch-model-archiver {version or 'of unknown version'}"
    branch.add(printable(f"made {created or 'at an unknown time'} by {maker}"))
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
