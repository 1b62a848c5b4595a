"""Small archives in each format, with a manifest and a provenance but no model that could answer."""

from __future__ import annotations

import hashlib
import json
import tarfile
import zipfile
from pathlib import Path
from typing import Any

KINDS = {"zip": ".mar", "tgz": ".tar.gz", "folder": ""}

COMMIT = "714eb0fa89d2f80546fda750413ed43d93601a13"
HUB = {"kind": "hub", "repo": "distilbert/distilbert-base-uncased", "commit": COMMIT}
VERSIONS = {
    "mar-pipeline": "0.0.7",
    "python": "3.11",
    "torch-model-archiver": "0.12.0",
    "torch": "2.4.0+cpu",
    "transformers": "4.57.6",
    "tokenizers": "absent",
}


def contents(name: str, provenance: dict[str, Any] | None, config: dict[str, Any] | None = None) -> dict[str, bytes]:
    """The files of an archive; without provenance it is one that another tool made."""
    files = {
        "MAR-INF/MANIFEST.json": json.dumps({"model": {"modelName": name, "modelVersion": "1.0"}}).encode(),
        "config.json": json.dumps(config or {"model_type": "bert"}).encode(),
        "handlers/base.py": b"# a handler",
        "model.safetensors": name.encode() * 100,
    }
    if provenance is not None:
        files["provenance.json"] = json.dumps(provenance).encode()
    return files


def provenance(source: dict[str, Any]) -> dict[str, Any]:
    return {
        "format": 1,
        "source": source,
        "checkpoint": {"model.safetensors": hashlib.sha256(b"weights").hexdigest()},
        "versions": VERSIONS,
        "settings": {"serialize": {"backend": "pretrained", "task": "seq_classification"}},
    }


def write(folder: Path, name: str, files: dict[str, bytes], kind: str = "zip") -> Path:
    """Pack files as an archive of that name in `folder`; its path."""
    path = folder / (name + KINDS[kind])
    folder.mkdir(parents=True, exist_ok=True)
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as made:
            for file, content in files.items():
                made.writestr(file, content)
        return path
    plain = path if kind == "folder" else folder.parent / "unpacked" / name
    for file, content in files.items():
        (plain / file).parent.mkdir(parents=True, exist_ok=True)
        (plain / file).write_bytes(content)
    if kind == "tgz":
        with tarfile.open(path, "w:gz") as made_tar:
            made_tar.add(plain, name)
    return path
