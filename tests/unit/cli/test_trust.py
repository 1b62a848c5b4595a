"""Whose archives run: --key, --require-signed, --not-before, and mar.toml. Nothing is read of one that is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from mar_pipeline import __main__ as command
from mar_pipeline.answers import rehearsal
from mar_pipeline.archive import signing
from mar_pipeline.serving import serve
from tests.support import fake_archives as archives
from tests.support.keys import write_key

COMMANDS = ("run", "explain", "smoke", "check", "serve")
OCTOBER = {"SOURCE_DATE_EPOCH": "1790812800"}  # date -u -d 2026-10-01 +%s


class Reached(Exception):
    """A command would use the archive now."""


@pytest.fixture
def key(tmp_path: Path) -> tuple[Path, Path]:
    return write_key(tmp_path, "key", ec.generate_private_key(ec.SECP256R1()))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """An output folder with one archive."""
    files = archives.contents("ham", None) | {"samples.json": b'["a"]'}
    archives.write(tmp_path / "build" / "model-store", "ham", files)
    config = tmp_path / "build" / "config" / "config.properties"
    config.parent.mkdir()
    config.write_text("load_models=ham=ham.mar\n")
    return tmp_path / "build"


@pytest.fixture
def mar(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """A command on the archive, in an empty working folder: what it prints on standard error, and "reached" if it
    would use the archive."""

    def used(*_: Any, **__: Any) -> None:
        raise Reached

    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.delenv("MAR_TOML", raising=False)
    monkeypatch.setattr("mar_pipeline.archive.reader.Archive.json", used)
    monkeypatch.setattr("mar_pipeline.audit.check.check", used)
    monkeypatch.setattr(rehearsal, "is_foreign", used)
    monkeypatch.setattr(serve, "check_ports", used)

    def run(name: str, *words: object) -> str:
        target = ["--out", out] if name == "serve" else [out / "model-store" / "ham.mar"]
        more = ["--input", "a"] if name == "explain" else []
        capsys.readouterr()
        code = command.run([name, *map(str, [*target, *more, *words])])
        error = capsys.readouterr().err
        if "test_trust.Reached" in error:
            assert code == 1
            return f"{error.partition('Traceback')[0]}reached"
        assert code == 2, error
        assert len(error[error.index("error: ") :].splitlines()) <= 3
        return error

    return run


def team(folder: Path, *lines: str) -> None:
    """A mar.toml in the working folder."""
    (folder / "work" / "mar.toml").write_text("\n".join(["[trust]", *lines]))


@pytest.mark.parametrize("name", COMMANDS)
def test_a_key_accepts_what_was_signed_and_nothing_else(
    mar: Callable[..., str], out: Path, key: tuple[Path, Path], name: str
) -> None:
    ham = out / "model-store" / "ham.mar"
    assert mar(name) == "reached"
    assert f"{ham} is not signed" in mar(name, "--key", key[1])
    signing.sign(ham, key[0], OCTOBER)
    said = mar(name, "--key", key[1])
    assert said.endswith("reached")
    assert ("ham.mar is signed by the key" in said) == (name != "check")
    assert "and none before 2026-10-02" in mar(name, "--key", key[1], "--not-before", "2026-10-02")
    assert mar(name, "--key", key[1], "--not-before", "2026-10-01T00:00:00Z").endswith("reached")
    ham.write_bytes(ham.read_bytes() + b"x")
    assert "is not what was signed" in mar(name, "--key", key[1])
    # Bytes that are no archive: the signature comes before any reading.
    ham.write_bytes(b"no archive")
    assert "is not what was signed" in mar(name, "--key", key[1])


@pytest.mark.parametrize("name", COMMANDS)
def test_a_team_sets_its_keys_in_a_file(
    mar: Callable[..., str], out: Path, tmp_path: Path, key: tuple[Path, Path], name: str
) -> None:
    team(tmp_path, 'keys = ["../key.public.pem"]')
    assert "warning: " in mar(name)
    assert mar(name).endswith("ham.mar is not signed.\nreached")
    team(tmp_path, 'keys = ["../key.public.pem"]', "require_signed = true")
    assert "ham.mar is not signed: there is no" in mar(name)
    assert mar(name, "--no-require-signed").endswith("reached")
    signing.sign(out / "model-store" / "ham.mar", key[0], OCTOBER)
    said = mar(name)
    assert f"Signatures are verified with the keys of {tmp_path / 'work' / 'mar.toml'}" in said
    assert said.endswith("reached")
    team(tmp_path, 'keys = ["../key.public.pem"]', "not_before = 2026-11-01")
    assert "and none before 2026-11-01" in mar(name)
    assert mar(name, "--not-before", "2026-01-01").endswith("reached")


@pytest.mark.usefixtures("key")
def test_without_a_demand_a_bad_signature_is_refused_all_the_same(
    mar: Callable[..., str], out: Path, tmp_path: Path
) -> None:
    team(tmp_path, 'keys = ["../key.public.pem"]')
    other = write_key(tmp_path, "other", ec.generate_private_key(ec.SECP256R1()))
    signature = signing.sign(out / "model-store" / "ham.mar", other[0])
    assert "is not by the key of" in mar("run")
    signature.unlink()
    signature.mkdir()
    assert "is not signed" in mar("run")


def test_a_downloaded_folders_file_weakens_nothing_of_the_command_line(
    mar: Callable[..., str], out: Path, tmp_path: Path, key: tuple[Path, Path]
) -> None:
    theirs = write_key(tmp_path, "theirs", ec.generate_private_key(ec.SECP256R1()))
    lines = ['keys = ["../theirs.public.pem"]', "require_signed = false", "not_before = 2000-01-01"]
    team(tmp_path, *lines)
    assert "is not signed" in mar("run", "--key", key[1])
    assert "is not signed" in mar("run", "--require-signed")
    assert "is not signed" in mar("run", "--not-before", "2026-01-01")
    assert "is not signed" in mar("run", "--name", "ham")
    signing.sign(out / "model-store" / "ham.mar", theirs[0], OCTOBER)
    assert "is not by the key of" in mar("run", "--key", key[1])
    assert "and none before 2026-11-01" in mar("run", "--not-before", "2026-11-01")


@pytest.mark.parametrize("words", [["--require-signed"], ["--not-before", "2026-01-01"], ["--name", "ham"]])
def test_a_demand_without_a_key_is_refused(mar: Callable[..., str], tmp_path: Path, words: list[str]) -> None:
    assert "there is no public key to verify it with" in mar("run", *words)
    for line in ("require_signed = true", "not_before = 2026-01-01"):
        team(tmp_path, line)
        assert "there is no public key to verify it with" in mar("run")
        assert mar("run", "--no-require-signed") == "reached"


@pytest.mark.parametrize("date", ["yesterday", "2026-13-01", "", "01.11.2026"])
def test_a_date_that_is_none_is_refused(mar: Callable[..., str], key: tuple[Path, Path], date: str) -> None:
    assert "is not a date" in mar("run", "--key", key[1], "--not-before", date)


@pytest.mark.parametrize("name", ["smoke", "serve"])
def test_every_archive_of_the_model_store_has_to_be_signed(
    mar: Callable[..., str], out: Path, key: tuple[Path, Path], name: str
) -> None:
    signing.sign(out / "model-store" / "ham.mar", key[0])
    spam = archives.write(out / "model-store", "spam", archives.contents("spam", None), "folder")
    words = ["--key", key[1], *([spam] if name == "smoke" else [])]
    assert f"{spam} is not signed" in mar(name, *words)
    signing.sign(spam, key[0])
    assert mar(name, *words).endswith("reached")
    (out / "config" / "config.properties").write_text("load_models=ham=../../ham.mar\n")
    if name == "serve":
        assert "does not exist" in mar(name, *words)


@pytest.mark.parametrize("name", ["run", "explain", "smoke", "serve"])
def test_the_help_says_that_an_archive_is_a_program(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    command.run([name, "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "An archive is a program: its handler runs with your rights" in said
    assert "--key accepts only archives that somebody you trust signed" in said
    assert "--sandbox" in said
