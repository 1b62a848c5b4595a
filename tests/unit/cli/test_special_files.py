"""Pipes, sockets and devices in place of files: every command says so, and waits for nobody."""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from mar_pipeline.archive.reader import MANIFEST
from tests.support.mar import Mar
from tests.unit.archive.readers import zips

pytestmark = pytest.mark.timeout(120)

CONFIG = "handler: {mode: sequence_classification, model_name: 'starter:seq_classification'}\n"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "model.yaml").write_text(CONFIG)
    return tmp_path / "model.yaml"


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    with zipfile.ZipFile(tmp_path / "whole.mar", "w") as file:
        file.writestr(MANIFEST, zips.MANIFEST)
        file.writestr("handler.py", "")
    return tmp_path / "whole.mar"


PLACES: dict[str, Callable[[Path], None]] = {
    "a pipe": os.mkfifo,
    "a device": lambda path: path.symlink_to("/dev/zero"),
}


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("name", ["x.mar", "x.tar.gz", "x"])
@pytest.mark.parametrize("words", ["inspect {}", "check {}", "diff {} {}", "run {} --input a", "explain {} --input a"])
def test_an_archive_is_a_file_or_a_folder(
    mar: Mar, tmp_path: Path, place: Callable[[Path], None], name: str, words: str
) -> None:
    place(tmp_path / name)
    done = mar(*words.format(tmp_path / name, tmp_path / name).split())
    assert done.returncode == 2, done.stderr
    assert f"{name} is not an archive" in done.stderr
    assert "a pipe or a device" in done.stderr


@pytest.mark.parametrize("name", [MANIFEST, "index_to_name.json", "extra.bin"])
@pytest.mark.parametrize("command", ["inspect", "check", "run"])
def test_a_folder_that_is_an_archive_has_files(
    mar: Mar, archive: Path, tmp_path: Path, name: str, command: str
) -> None:
    with zipfile.ZipFile(archive) as file:
        file.extractall(tmp_path / "folder")
    (tmp_path / "folder" / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / "folder" / name)
    done = mar(command, tmp_path / "folder")
    assert done.returncode == 2
    assert f"{name} is a pipe or a device, not a file" in done.stderr + done.stdout


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("command", ["plan", "build", "lock"])
def test_a_config_is_a_file(mar: Mar, tmp_path: Path, place: Callable[[Path], None], command: str) -> None:
    place(tmp_path / "x.yaml")
    done = mar(command, tmp_path / "x.yaml")
    assert done.returncode == 2
    assert "x.yaml: cannot be read: it is a" in done.stderr


def test_a_lock_is_a_file(mar: Mar, config: Path) -> None:
    os.mkfifo(config.with_name("model.yaml.lock"))
    done = mar("plan", config)
    assert done.returncode == 2
    assert "model.yaml.lock cannot be read as a lock" in done.stderr
    assert "it is a pipe, not a file" in done.stderr


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_an_input_is_a_file_or_standard_input(
    mar: Mar, archive: Path, tmp_path: Path, place: Callable[[Path], None]
) -> None:
    place(tmp_path / "input")
    done = mar("run", archive, "--input", f"@{tmp_path / 'input'}")
    assert done.returncode == 2
    assert "cannot be read: it is a" in done.stderr
    assert "- for standard input" in done.stderr


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_keys_are_files(mar: Mar, archive: Path, tmp_path: Path, place: Callable[[Path], None]) -> None:
    place(tmp_path / "key.pem")
    for words in (("sign", archive), ("check", archive)):
        done = mar(*words, "--key", tmp_path / "key.pem")
        assert done.returncode == 2
        assert "key.pem cannot be read: it is a" in done.stderr


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors", "README.md"])
def test_a_checkpoint_has_files(mar: Mar, tmp_path: Path, place: Callable[[Path], None], name: str) -> None:
    shutil.copytree(Path(__file__).parents[3] / "pipeline/starters/seq_classification", tmp_path / "model")
    (tmp_path / "model" / name).unlink(missing_ok=True)
    place(tmp_path / "model" / name)
    done = mar("plan", "--task", "seq_classification", "--model", tmp_path / "model")
    assert done.returncode in ((0, 2) if name == "README.md" else (2,)), done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "name",
    [
        *(f"model-store/{name}" for name in ("f.mar", "f.tar.gz", "model.mar", "f/MAR-INF/MANIFEST.json")),
        *("SHA256SUMS", "config/config.properties", "reports/model.json"),
    ],
)
def test_a_pipe_in_the_output_folder_does_not_stop_a_plan(mar: Mar, config: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "out" / name).parent.mkdir(parents=True)
    os.mkfifo(tmp_path / "out" / name)
    done = mar("plan", config, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr


def test_a_pipe_in_place_of_the_caches_mark_does_not_stop_a_command(mar: Mar, config: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    os.mkfifo(tmp_path / "cache/CACHEDIR.TAG")
    done = mar("plan", config, "--cache", tmp_path / "cache")
    assert done.returncode == 2
    assert "The cache cannot be at" in done.stderr


def test_paths_of_another_encoding_are_said(mar: Mar, config: Path, tmp_path: Path) -> None:
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/a\xff"))
    shutil.copytree(Path(__file__).parents[3] / "pipeline/starters/seq_classification", odd)
    done = mar("plan", "--task", "seq_classification", "--model", odd)
    assert done.returncode == 2
    assert "has a path that is not UTF-8" in done.stderr
    done = mar("plan", config, "--cache", odd / "cache")
    assert done.returncode == 2
    assert "The cache cannot be at" in done.stderr
    assert "its path is not UTF-8" in done.stderr


def test_the_environment_of_a_compiler_is_read_from_files(mar: Mar, config: Path, tmp_path: Path) -> None:
    (tmp_path / "venv/bin").mkdir(parents=True)
    (tmp_path / "venv/bin/python").touch(0o755)
    os.mkfifo(tmp_path / "venv/pyvenv.cfg")
    done = mar(
        "plan", config, "--set", "handler.hardware=neuronx", "--set", f"hardware.python={tmp_path}/venv/bin/python"
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("settings", [None, "a: !!python/object/apply:os.getcwd []\n", "a: [", "a: &b [*b]\n\t"])
def test_settings_of_an_archive_that_cannot_be_read_have_a_sentence(
    mar: Mar, tmp_path: Path, settings: str | None
) -> None:
    with zipfile.ZipFile(tmp_path / "a.mar", "w") as file:
        file.writestr(MANIFEST, '{"model": {"modelName": "m", "handler": "handler.py", "configFile": "c.yaml"}}')
        file.writestr("handler.py", "def handle(data, context):\n    return [1]\n")
        if settings is not None:
            file.writestr("c.yaml", settings)
    done = mar("run", tmp_path / "a.mar", "--input", "a")
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "error: " in done.stderr
