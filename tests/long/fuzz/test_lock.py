"""A lock file beside a config."""

from __future__ import annotations

from pathlib import Path

import pytest

from mar_pipeline.builder.stages import locking
from mar_pipeline.config.build_config import load_all
from mar_pipeline.model import lock

from .changes import of_json
from .harness import Reader, check

_COMMIT = "0123456789abcdef0123456789abcdef01234567"
_SEEDS = [
    {
        "format": 1,
        "model": "starter:seq_classification",
        "settings": {"revision": None, "allow_pickle": False},
        "sources": [{"kind": "hub", "repo": "org/name", "commit": _COMMIT, "license": "mit"}, {"kind": "folder"}],
        "license": "apache-2.0",
        "files": {
            "config.json": {"sha256": "0" * 64, "size": 12},
            "model.safetensors": {"sha256": "1" * 64, "size": 9},
        },
    }
]


def read(data: bytes, folder: Path) -> None:
    config = folder / "model.yaml"
    config.write_text("handler: {mode: sequence_classification, model_name: 'starter:seq_classification'}\n")
    lock.path_of(config).write_bytes(data)
    found = lock.read(config)
    assert found is not None
    found.to_json().encode()
    found.part(0, config), found.part(1, config), found.commit(0, "org/name")
    "\n".join([*found.drift({}), *found.differences(found), *found.stale("x", {})])
    locking.fitting(load_all([config])[0], strict=False, note=lambda _: None)


READER = Reader("lock", read, of_json(_SEEDS))


@pytest.mark.slow
def test_no_lock_ends_the_command(tmp_path: Path) -> None:
    check(READER, tmp_path)
