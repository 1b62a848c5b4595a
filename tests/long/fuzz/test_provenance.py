"""What an archive was built from, and its other JSON files, as `mar inspect` and `mar release` read them."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from mar_pipeline.archive.bom import _Archive, _text
from mar_pipeline.archive.contents import describe
from mar_pipeline.archive.reader import MANIFEST, PROVENANCE
from mar_pipeline.cli import report

from .changes import of_json
from .harness import Reader, check

_SEEDS = [
    {
        "source": {"kind": "hub", "repo": "org/name", "commit": "0" * 40, "license": "mit", "base": {"repo": "a/b"}},
        "checkpoint": {"config.json": "0" * 64},
        "files": {"config.json": "0" * 64},
        "settings": {"serialize": {"task": "seq_classification", "backend": "pretrained"}},
        "versions": {"python": "3.11.7", "torch": "2.4.0", "peft": "absent"},
    },
    {"0": "negative", "1": "positive"},
]


def read(data: bytes, folder: Path) -> None:
    archive = folder / "name.mar"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr(MANIFEST, '{"model": {"modelName": "name", "modelVersion": "1", "handler": "handler.py"}}')
        for name in (PROVENANCE, "config.json", "index_to_name.json"):
            file.writestr(name, data)
    description = describe(archive)
    json.dumps(description)
    report.tree(description)
    _text({archive.name: _Archive(archive)}, None)


READER = Reader("provenance", read, of_json(_SEEDS))


@pytest.mark.slow
def test_no_provenance_ends_the_command(tmp_path: Path) -> None:
    check(READER, tmp_path)
