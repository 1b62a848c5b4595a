"""An archive's manifest."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from mar_pipeline.archive.contents import describe
from mar_pipeline.archive.reader import MANIFEST, Archive

from .changes import of_json
from .harness import Reader, check

_SEEDS = [
    {
        "createdOn": "01/01/2024 00:00:00",
        "runtime": "python",
        "model": {
            "modelName": "name",
            "handler": "handler.py",
            "modelVersion": "1.0",
            "configFile": "model-config.yaml",
            "requirementsFile": "requirements.txt",
        },
        "archiverVersion": "0.12.0",
    }
]


def read(data: bytes, folder: Path) -> None:
    archive = folder / "name.mar"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr(MANIFEST, data)
        file.writestr("handler.py", "")
        file.writestr("model-config.yaml", "minWorkers: 1\n")
        file.writestr("requirements.txt", "x\n")
    Archive(archive).name.encode("utf-8", "backslashreplace")
    json.dumps(describe(archive))


READER = Reader("manifest", read, of_json(_SEEDS))


@pytest.mark.slow
def test_no_manifest_ends_the_command(tmp_path: Path) -> None:
    check(READER, tmp_path)
