"""`mar inspect`: archives of the real torch-model-archiver."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mar_pipeline import __main__ as command
from mar_pipeline.archive.contents import describe
from tests.support.archiver import FILES, VERSIONS, make, rewrite


@pytest.mark.parametrize("form", ["default", "zip-store", "tgz", "no-archive"])
def test_inspect_tells_the_manifests_facts_in_every_format(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    source = tmp_path / "source"
    archive = make(
        tmp_path,
        {"requirements.txt": b"torch==2.4.0\n"},
        form=form,
        requirements_file=str(source / "requirements.txt"),
        serialized_file=str(source / "model.safetensors"),
    )
    assert command.run(["inspect", str(archive)]) == 0
    out = capsys.readouterr().out
    for line in (
        "handler: handler.py",
        "weights: model.safetensors",
        "torch==2.4.0",
        "runtime: python",
        "labels: no, yes",
    ):
        assert line in out
    assert "by torch-model-archiver 0.12" in out
    found = describe(archive)
    assert found["settings"]["handler"] == {"max_length": 128}
    assert {file["path"]: file["size"] for file in found["files"]}["tokenizer.json"] == len(
        FILES["tokenizer.json"] or b""
    )
    assert found["provenance"]["versions"] == VERSIONS


def test_inspect_shows_an_archive_of_the_archiver_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    none: dict[str, bytes | None] = {name: None for name in FILES if name != "handler.py"}
    archive = make(tmp_path, none, recorded=False, config_file=None, version=None)
    assert command.run(["inspect", str(archive)]) == 0
    out = capsys.readouterr().out
    assert "settings: none" in out
    assert "provenance: none" in out
    assert command.run(["inspect", str(archive), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["settings"], found["provenance"], found["labels"]) == ({}, None, None)


def test_inspect_draws_folders_within_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.run(["inspect", str(make(tmp_path, {"handlers/deep/er.py": b""}))]) == 0
    rows = capsys.readouterr().out.splitlines()
    depth = {name: next(row.index(name) for row in rows if name in row) for name in ("handlers/", "deep/", "er.py")}
    assert depth["handlers/"] < depth["deep/"] < depth["er.py"]


@pytest.mark.parametrize(
    "changes",
    [
        {"model-config.yaml": b"key: ["},
        {"model-config.yaml": b"\xff\xfe"},
        {"provenance.json": b"{"},
        {"index_to_name.json": b"{"},
        {"model-config.yaml": None},
        {"model-config.yaml": b"# long\n" * 200_000},
    ],
    ids=["settings", "bytes", "provenance", "labels", "missing", "large"],
)
def test_inspect_refuses_what_it_cannot_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, bytes | None]
) -> None:
    assert command.run(["inspect", str(rewrite(make(tmp_path), changes))]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert "Traceback" not in err


@pytest.mark.parametrize("text", [b"[1, 2]", b"2026-01-01", b"just words"])
def test_inspect_shows_settings_that_are_no_mapping(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: bytes
) -> None:
    archive = rewrite(
        make(tmp_path), {"model-config.yaml": text, "index_to_name.json": b'["a"]', "provenance.json": b"3"}
    )
    assert command.run(["inspect", str(archive)]) == 0
    assert "which is not a mapping" in capsys.readouterr().out
    assert command.run(["inspect", str(archive), "--json"]) == 0
