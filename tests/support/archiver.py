"""Small archives made by the real torch-model-archiver, and what is changed in them afterwards."""

from __future__ import annotations

import hashlib
import json
import struct
import tempfile
import zipfile
from pathlib import Path
from typing import Any
from unittest import mock

from mar_pipeline.audit.check import check

HANDLER = b"""
class Handler:
    def initialize(self, context):
        self.context = context

    def handle(self, data, context):
        return data
"""


def safetensors(header: dict[str, tuple[str, list[int], bytes]], note: str = "") -> bytes:
    """A safetensors file of these types, shapes and bytes, as the format's README has it."""
    at, told, body = 0, {}, b""
    for name, (dtype, shape, data) in header.items():
        told[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        at, body = at + len(data), body + data
    text = json.dumps({**({"__metadata__": {"note": note}} if note else {}), **told}).encode()
    return struct.pack("<Q", len(text)) + text + body


WEIGHTS = {
    "encoder.weight": ("F32", [2, 3], bytes(range(24))),
    "encoder.bias": ("F32", [3], bytes(12)),
    "head.weight": ("F32", [2], bytes(8)),
}

FILES: dict[str, bytes] = {
    "handler.py": HANDLER,
    "handlers/base.py": b"# shared\n",
    "config.json": json.dumps({"model_type": "bert", "id2label": {"0": "no", "1": "yes"}}).encode(),
    "tokenizer.json": b"{}",
    "tokenizer_config.json": b'{"do_lower_case": true}',
    "model.safetensors": safetensors(WEIGHTS),
    "model-config.yaml": b"minWorkers: 1\nmaxWorkers: 1\nbatchSize: 8\nhandler:\n  max_length: 128\n",
    "index_to_name.json": b'{"0": "no", "1": "yes"}',
    "samples.json": b'[{"text": "a"}]',
}

VERSIONS = {"torch": "2.12.0", "tokenizers": "0.20.0"}


def provenance(packed: dict[str, bytes], **changes: Any) -> bytes:
    """The record of these files, as a build writes it."""
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in packed.items()}
    told = {"format": 1, "source": {"kind": "folder"}, "checkpoint": {}, "files": digests, "versions": VERSIONS}
    return json.dumps({**told, "settings": {}, **changes}).encode()


def make(
    folder: Path,
    changes: dict[str, bytes | None] | None = None,
    *,
    form: str = "zip-store",
    record: dict[str, Any] | None = None,
    recorded: bool = True,
    **manifest: Any,
) -> Path:
    """An archive of FILES with `changes` (None: without that file), and a provenance unless it is not `recorded`."""
    from model_archiver.model_archiver_config import ModelArchiverConfig
    from model_archiver.model_packaging import generate_model_archive

    files = {name: data for name, data in {**FILES, **(changes or {})}.items() if data is not None}
    if recorded:
        files["provenance.json"] = provenance(files, **(record or {}))
    source, out, temporary = folder / "source", folder / "out", folder / "tmp"
    for name, data in files.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(data)
    for made in (out, temporary):
        made.mkdir(parents=True)
    options = {"model_name": "model", "version": "1.0", "handler": str(source / "handler.py"), **manifest}
    options.setdefault("config_file", str(source / "model-config.yaml"))
    with mock.patch.object(tempfile, "tempdir", str(temporary)):
        generate_model_archive(
            ModelArchiverConfig(export_path=str(out), archive_format=form, extra_files=str(source), **options)
        )
    return next(out.iterdir())


def rewrite(archive: Path, changes: dict[str, bytes | None]) -> Path:
    """A .mar with files changed, added or (None) left out, by zipfile; nothing else knows of it."""
    with zipfile.ZipFile(archive) as opened:
        files: dict[str, bytes | None] = {info.filename: opened.read(info) for info in opened.infolist()}
    with zipfile.ZipFile(archive, "w") as written:
        for name, data in {**files, **changes}.items():
            if data is not None:
                written.writestr(name, data)
    return archive


def manifest(archive: Path, **changes: Any) -> Path:
    """A .mar whose manifest says other things: of the model, or (`top`) of the archive."""
    with zipfile.ZipFile(archive) as opened:
        told = json.loads(opened.read("MAR-INF/MANIFEST.json"))
    told |= changes.pop("top", {})
    told["model"] |= changes
    return rewrite(archive, {"MAR-INF/MANIFEST.json": json.dumps(told).encode()})


def findings(archive: Path, level: str | None = None) -> list[str]:
    """What `mar check` says of an archive: `where: what`, of one level or of all."""
    return [
        f"{one['where']}: {one['what']}" for one in check(archive)["findings"] if level is None or one["level"] == level
    ]
