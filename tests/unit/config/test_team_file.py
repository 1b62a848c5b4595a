"""mar.toml: where it is looked for, and what it may say."""

from __future__ import annotations

import os
from datetime import datetime, timezone
from pathlib import Path

import pytest

from mar_pipeline.config import team_file
from mar_pipeline.errors import InputError

WHOLE = """\
[trust]
keys = ["keys/team.pem", "/etc/other.pem"]
require_signed = true
not_before = 2026-11-01
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder two levels above the working folder."""
    below = tmp_path / "project" / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    monkeypatch.delenv("MAR_TOML", raising=False)
    return tmp_path / "project"


def refused(text: str, project: Path) -> str:
    """The error that a mar.toml gets: one to three lines that begin with its path."""
    (project / "mar.toml").write_text(text)
    with pytest.raises(InputError) as caught:
        team_file.read()
    lines = str(caught.value).splitlines()
    assert lines[0].startswith(str(project / "mar.toml"))
    assert len(lines) <= 3
    return lines[0].removeprefix(str(project / "mar.toml"))


def test_the_nearest_file_at_or_above_the_working_folder_is_read(project: Path) -> None:
    assert team_file.read() is None
    (project / "mar.toml").write_text(WHOLE)
    far = team_file.read()
    assert far is not None
    assert far.path == project / "mar.toml"
    (project / "a" / "mar.toml").write_text("")
    near = team_file.read()
    assert near is not None
    assert (near.path, near.keys, near.not_before) == (project / "a" / "mar.toml", [], None)
    assert near.tables.trust.require_signed is False


def test_its_paths_are_relative_to_it_and_its_date_is_midnight_in_utc(project: Path) -> None:
    (project / "mar.toml").write_text(WHOLE)
    read = team_file.read()
    assert read is not None
    assert read.keys == [project / "keys" / "team.pem", Path("/etc/other.pem")]
    assert read.tables.trust.require_signed is True
    assert read.not_before == datetime(2026, 11, 1, tzinfo=timezone.utc)


def test_paths_and_times_at_the_edge_are_no_crash(project: Path) -> None:
    lines = ["[trust]", 'keys = ["~nobody-at-all/a.pem", "a\\u0000b"]', "not_before = 0001-01-01T00:00:00+05:00"]
    (project / "mar.toml").write_text("\n".join(lines))
    read = team_file.read()
    assert read is not None
    assert [path.parent for path in read.keys] == [project / "~nobody-at-all", project]
    assert read.not_before == datetime(1, 1, 1, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("value", "hour"),
    [("2026-11-01T12:00:00Z", 12), ("2026-11-01T12:00:00+02:00", 10), ("2026-11-01T12:00:00", 12)],
)
def test_a_time_may_have_a_zone(project: Path, value: str, hour: int) -> None:
    (project / "mar.toml").write_text(f"[trust]\nnot_before = {value}\n")
    read = team_file.read()
    assert read is not None
    assert read.not_before == datetime(2026, 11, 1, hour, tzinfo=timezone.utc)


def test_a_variable_names_another_file_or_none(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "mar.toml").write_text("[trust]\nwrong = 1\n")
    monkeypatch.setenv("MAR_TOML", "")
    assert team_file.read() is None
    (project / "other.toml").write_text(WHOLE)
    monkeypatch.setenv("MAR_TOML", str(project / "other.toml"))
    read = team_file.read()
    assert read is not None
    assert read.path == project / "other.toml"
    monkeypatch.setenv("MAR_TOML", str(project / "nowhere.toml"))
    with pytest.raises(InputError, match=r"nowhere\.toml cannot be read: No such file"):
        team_file.read()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("\n[trust]\nkeyz = []\n", ":3: trust.keyz does not exist; did you mean keys?"),
        ("[trst]\n", ":1: trst does not exist; did you mean trust?"),
        ("# first\n\nkeys = []\n", ":3: keys does not exist; there is trust."),
        ("[trust]\nkeys = 'a.pem'\n", ':2: trust.keys takes a list of paths of public keys (PEM), and not "a.pem".'),
        ("[trust]\nkeys = [\n1]\n", ":2: trust.keys takes a list of paths of public keys (PEM), and not 1."),
        ("[trust]\nrequire_signed = 'yes'\n", ':2: trust.require_signed takes true or false, and not "yes".'),
        ("[trust]\nrequire_signed = 1\n", ":2: trust.require_signed takes true or false, and not 1."),
        ("trust = 3\n", ":1: trust takes a table: [trust], and not 3."),
        ("trust.require_signed = 3\n", ":1: trust.require_signed takes true or false, and not 3."),
    ],
)
def test_a_wrong_setting_is_named_with_its_line(project: Path, text: str, said: str) -> None:
    assert refused(text, project) == said


@pytest.mark.parametrize("value", ['"2026-11-01"', "12:00:00", "20261101", "true", "[2026-11-01]"])
def test_a_date_is_a_date(project: Path, value: str) -> None:
    assert "trust.not_before takes a date without quotes, as 2026-11-01" in refused(
        f"[trust]\nnot_before = {value}\n", project
    )


@pytest.mark.parametrize(
    "text", ["[trust", "[trust]\n[trust]\n", "a = 1\na = 2\n", "keys: []", "a = " + "[" * 100_000, "\x1b[31m = 1"]
)
def test_what_is_not_toml_is_refused_with_the_place(project: Path, text: str) -> None:
    said = refused(text, project)
    assert "is not TOML" in said
    assert said.isprintable()


def test_bytes_that_are_no_text_are_refused(project: Path) -> None:
    (project / "mar.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="is not TOML"):
        team_file.read()


def test_a_file_that_cannot_be_read_counts_as_a_failure_and_not_as_none(project: Path) -> None:
    """Otherwise whoever can spoil it could switch it off."""
    (project / "mar.toml").symlink_to("nowhere")
    with pytest.raises(InputError, match=r"mar\.toml cannot be read: No such file"):
        team_file.read()
    (project / "mar.toml").unlink()
    os.mkfifo(project / "mar.toml")
    with pytest.raises(InputError, match=r"mar\.toml cannot be read: it is not a file"):
        team_file.read()
    (project / "mar.toml").unlink()
    (project / "mar.toml").mkdir()
    with pytest.raises(InputError, match=r"mar\.toml cannot be read: it is not a file"):
        team_file.read()


def test_a_large_file_is_refused(project: Path) -> None:
    (project / "mar.toml").write_text("#" * ((1 << 20) + 1))
    with pytest.raises(InputError, match="has more than 1,048,576 bytes"):
        team_file.read()
