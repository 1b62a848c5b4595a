"""The original model's answers in the report of an archive that was not verified where it was built."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from mar_pipeline.errors import InputError
from mar_pipeline.serving.smoke import Original, unverified
from tests.support import archiver

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    (tmp_path / "reports").mkdir()
    made = archiver.make(tmp_path / "made", record={"unverified": True})
    (tmp_path / "model-store").mkdir()
    return made.rename(tmp_path / "model-store" / "model.mar")


def report(archive: Path, **changes: Any) -> str:
    sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()
    return json.dumps({"sha256": sha256, "verified": False, "samples": [{"expected": 1}], "tolerance": 0.5, **changes})


def test_the_answers_are_in_the_report_beside_it(archive: Path, tmp_path: Path) -> None:
    (tmp_path / "reports" / "model.json").write_text(report(archive))
    assert unverified(archive) == Original(answers=[1], tolerance=0.5)
    (tmp_path / "reports" / "model.json").write_text(report(archive, verified=True))
    assert unverified(archive) is None


@pytest.mark.parametrize(
    "changes",
    [{"tolerance": value} for value in (10**400, "x", None, float("nan"), float("inf"), [])]
    + [{"samples": value} for value in (None, 1, [1], [{}], "x", {"a": 1})],
    ids=lambda changes: str(changes)[:30],
)
def test_a_report_with_values_of_another_kind_is_damaged(
    archive: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    (tmp_path / "reports" / "model.json").write_text(report(archive, **changes))
    with pytest.raises(InputError, match="missing or damaged"):
        unverified(archive)


def test_a_report_is_a_json_file(archive: Path, tmp_path: Path) -> None:
    file = tmp_path / "reports" / "model.json"
    for text in ('{"a":' * 100_000, "[]", "1", "\\x"):
        file.write_text(text)
        with pytest.raises(InputError, match="missing or damaged"):
            unverified(archive)
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(InputError, match="missing or damaged"):
        unverified(archive)


@pytest.mark.parametrize("record", [b"[1]", b"1", b"null", b'"x"'])
def test_an_archive_without_a_record_is_verified(tmp_path: Path, record: bytes) -> None:
    made = archiver.make(tmp_path / "made", {"provenance.json": record}, recorded=False)
    assert unverified(made) is None
