"""What commands print of an archive: how a build ended, and what is in one."""

from __future__ import annotations

from typing import Any

from ..text import printable, seconds, size, table

# What a manifest says beside the name and version, in words.
_FACTS = {
    "handler": "handler",
    "serializedFile": "weights",
    "modelFile": "model's code",
    "configFile": "settings",
    "requirementsFile": "requirements",
}
_DEEPEST = 12  # mappings within mappings that are drawn


def summary(archive: dict[str, Any]) -> None:
    """Print what a person wants to know of an archive that was built."""
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
    """Where a model came from, in a few words."""
    base = f", over {_origin(source['base'])}" if "base" in source else ""
    if source["kind"] == "hub":
        return f"{source['repo']} at {source['commit'][:12]}{base}"
    if source["kind"] == "mlflow":
        return f"{source['model']}, version {source['version']}{base}"
    return f"{source.get('url', 'a folder')}{base}"


def tree(found: dict[str, Any]) -> str:
    """What `archive.contents.describe` tells, as a tree."""
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
