"""What disks and file systems refuse is said in words, with exit code 3, by every command."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import pytest

from mar_pipeline import __main__ as command
from mar_pipeline.answers import rehearsal
from mar_pipeline.archive import model_store
from mar_pipeline.archive.reader import Archive
from mar_pipeline.errors import of_the_disk
from mar_pipeline.files import private
from tests.unit.cli.test_output import LABELS, archive

SAID = {
    errno.ENOSPC: "is full",
    errno.EDQUOT: "quota",
    errno.EROFS: "is read-only",
    errno.ENOLCK: "does not support locks",
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MAR_CACHE", str(tmp_path / "cache"))
    return archive(tmp_path / "a", LABELS)


def failing(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert command.run([str(word) for word in words]) == 3
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
    assert 2 <= len(err.splitlines()) <= 3, err
    assert "TMPDIR" in err.splitlines()[-1]
    return err


@pytest.mark.parametrize("number", SAID)
@pytest.mark.parametrize("place", ["unpacking", "folder"])
@pytest.mark.parametrize("asked", [["run"], ["explain"]])
def test_an_archive_that_cannot_be_unpacked(
    here: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    asked: list[str],
    place: str,
    number: int,
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    if place == "unpacking":
        monkeypatch.setattr(Archive, "unpack", refused)
    else:
        monkeypatch.setattr(private, "Folder", refused)
    monkeypatch.setattr(rehearsal, "is_foreign", lambda _: False)
    assert SAID[number] in failing(capsys, *asked, here, "--input", "a")


def test_a_disk_without_inodes_is_not_said_to_be_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = OSError(errno.ENOSPC, "No space left on device", str(tmp_path))
    assert "is full" in str(of_the_disk(full))
    real = os.statvfs(tmp_path)
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result([*real[:7], 0, *real[8:]]))
    assert "no inodes left" in str(of_the_disk(full))


def test_an_error_that_is_none_of_the_disk_stays_what_it_is() -> None:
    assert of_the_disk(OSError(errno.EBADF, "Bad file descriptor")) is None


def test_a_folder_in_the_place_of_a_file_is_said(
    here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out" / "SHA256SUMS").mkdir(parents=True)
    monkeypatch.setattr(rehearsal, "answers", lambda *_, **__: model_store.renew(tmp_path / "out", "SHA256SUMS", "x"))
    assert command.run(["run", str(here), "--input", "a"]) == 2
    err = capsys.readouterr().err
    assert f"error: {tmp_path}/out/SHA256SUMS: Is a directory." in err
    assert "Traceback" not in err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has it")
@pytest.mark.parametrize("words", [["inspect"], ["check"], ["inspect", "--json"]])
def test_an_output_that_cannot_be_written(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    with Path("/dev/full").open("w", encoding="utf-8", buffering=1 << 20) as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert command.run([words[0], str(here), *words[1:]]) == 3
        assert "is full" in capsys.readouterr().err
        # Nothing is left that would fail once more when it is closed.
