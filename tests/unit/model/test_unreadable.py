"""Checkpoints that cannot be read as they are: permissions, Git LFS pointers, folders of the Hugging Face cache."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

import pytest

from mar_pipeline import __main__ as command
from mar_pipeline.answers import rehearsal
from mar_pipeline.archive.reader import Archive
from mar_pipeline.audit.check import check
from mar_pipeline.cache.store import Store
from mar_pipeline.config.build_config import load
from mar_pipeline.errors import InputError
from mar_pipeline.model.address import find
from mar_pipeline.model.selection import select
from mar_pipeline.sources.folder import Folder
from mar_pipeline.sources.source import read_text
from tests.support.mar import Mar
from tests.support.zygote import COMMAND

NOBODY = 65534
COMMIT = "0123456789abcdef0123456789abcdef01234567"
POINTER = (
    "version https://git-lfs.github.com/spec/v1\n"
    "oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 2471\n"
)
FILES = {
    "config.json": '{"model_type": "bert", "architectures": ["BertForSequenceClassification"]}',
    "model.safetensors": "weights",
    "tokenizer.json": "{}",
}


@contextmanager
def another_user() -> Iterator[None]:
    """Within it, files are those of a user without rights of its own."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture(scope="module")
def imported() -> None:
    """What commands import late, from where another user may not read."""
    for name in COMMAND:
        import_module(name)


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder in which every user may work."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o777)
    yield folder
    for path in (folder, *folder.rglob("*")):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o700)
    shutil.rmtree(folder)


@pytest.fixture
def model(place: Path) -> Path:
    folder = place / "model"
    folder.mkdir()
    for name, text in FILES.items():
        (folder / name).write_text(text)
    return folder


def reads(folder: Path) -> None:
    """Read a checkpoint's files as a build does."""
    source = Folder(Store(folder.parent / "cache"), folder, str(folder), {"kind": "folder"})
    chosen = select(source.sizes(), str(folder), lambda path: read_text(source, path))
    for path in chosen.files.values():
        source.text(path)


@pytest.mark.parametrize(
    ("mode", "named"),
    [(0o000, "model"), (0o311, "model"), (0o744, "config.json")],
    ids=["no rights", "not listed", "listed only"],
)
def test_a_folder_that_may_not_be_read_is_named(model: Path, mode: int, named: str) -> None:
    model.chmod(mode if os.geteuid() == 0 else mode & 0o077 | (mode & 0o7) << 6)
    with another_user(), pytest.raises(InputError) as caught:
        reads(model)
    assert f"/{named} cannot be read: Permission denied" in caught.value.what
    assert "chmod" in caught.value.fix


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_may_not_be_read_is_named(model: Path, name: str) -> None:
    (model / name).chmod(0o000)
    with another_user(), pytest.raises(InputError, match=f"{name} cannot be read: Permission denied"):
        reads(model)


def test_a_snapshot_whose_blobs_may_not_be_read_is_named(model: Path, place: Path) -> None:
    repository = place / "models--org--name"
    shutil.copytree(model, repository / "blobs")
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    for name in FILES:
        (snapshot / name).symlink_to(f"../../blobs/{name}")
    reads(snapshot)
    (repository / "blobs").chmod(0o000)
    with another_user(), pytest.raises(InputError, match="cannot be read: Permission denied"):
        reads(snapshot)


@pytest.mark.usefixtures("imported")
@pytest.mark.parametrize("words", [["plan", "--model"], ["check"], ["inspect"], ["run"], ["plan"]], ids=" ".join)
@pytest.mark.parametrize("inside", [False, True], ids=["itself", "a file in it"])
def test_every_command_names_what_it_may_not_read(
    place: Path, words: list[str], inside: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAR_CACHE", str(place / "cache"))
    dark = place / "dark"
    dark.mkdir()
    (dark / "m").write_text("")
    dark.chmod(0o000)
    with another_user():
        code = command.run([*words, str(dark / "m" if inside else dark)])
    error = capsys.readouterr().err
    assert code == 2, error
    assert str(dark) in error
    assert "Traceback" not in error


@pytest.mark.usefixtures("imported")
def test_an_output_that_may_not_be_written_is_named(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "out").mkdir(mode=0o500)
    with another_user():
        code = command.run(
            ["plan", "--model", "starter:x", "--out", str(place / "out"), "--cache", str(place / "out/c")]
        )
    assert code == 2
    assert "Traceback" not in capsys.readouterr().err


ALL = (*FILES, "tokenizer_config.json", "special_tokens_map.json", "generation_config.json", "vocab.txt", "merges.txt")


@pytest.mark.parametrize("name", [*ALL, "chat_template.jinja", "spiece.model"])
def test_a_pointer_in_place_of_any_file_is_named(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for file, text in {**FILES, name: POINTER}.items():
        (folder / file).write_text(text)
    task = [] if name == "config.json" else ["--task", "seq_classification"]
    done = Mar(tmp_path)("build", "--model", folder, *task, "--out", tmp_path / "out")
    assert done.returncode == 2, done.stderr
    assert f"{folder}/{name} is a Git LFS pointer" in done.stderr
    assert "git lfs pull" in done.stderr


@pytest.mark.parametrize("name", ["modules.json", "model.safetensors.index.json", "adapter_config.json"])
def test_a_pointer_in_place_of_a_list_of_files_is_named(model: Path, name: str) -> None:
    (model / name).write_text(POINTER)
    if name == "modules.json":
        (model / "config.json").unlink()
    (model / "model.safetensors").unlink()
    with pytest.raises(InputError, match=f"{name} is a Git LFS pointer"):
        reads(model)


def test_a_pointer_in_place_of_an_archive_or_a_config_is_named(tmp_path: Path) -> None:
    for name in ("m.mar", "m.tar.gz", "config.yaml"):
        (tmp_path / name).write_text(POINTER)
    for name in ("m.mar", "m.tar.gz"):
        with pytest.raises(InputError, match=f"{name} is a Git LFS pointer"):
            Archive(tmp_path / name)
    with pytest.raises(InputError, match=r"config\.yaml: is a Git LFS pointer"):
        load(tmp_path / "config.yaml")


def test_a_pointer_in_an_archive_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "archive"
    (folder / "MAR-INF").mkdir(parents=True)
    (folder / "MAR-INF" / "MANIFEST.json").write_text('{"model": {"modelName": "m", "handler": "h.py"}}')
    (folder / "h.py").write_text("def handle(data, context):\n    return data\n")
    store = Store(tmp_path / "cache")
    replies = {"single": [1], "statuses": [200], "hints": []}
    monkeypatch.setattr("mar_pipeline.workers.client.work", lambda *_, **__: replies)
    assert rehearsal.answers(store, folder, [1]) == replies
    assert check(folder)["ok"]
    (folder / "weights.pt").write_text(POINTER)
    with pytest.raises(InputError, match=f"weights.pt in {folder} is a Git LFS pointer"):
        rehearsal.answers(store, folder, [1])
    (finding,) = [each for each in check(folder)["findings"] if each["level"] == "error"]
    assert (finding["where"], "Git LFS pointer" in finding["what"]) == ("weights.pt", True)


def test_a_folder_above_a_snapshot_is_named_with_the_snapshot(model: Path, place: Path) -> None:
    hub = place / "hub"
    repository = hub / "models--org--name"
    for commit in ("0" * 40, COMMIT, "f" * 40):
        shutil.copytree(model, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    reads(repository / "snapshots" / COMMIT)
    for folder, said in (
        (repository, f"{repository}/snapshots/{COMMIT}, or give the Hub id: org/name"),
        (repository / "snapshots", f"{repository}/snapshots/{'f' * 40}"),
        (hub, "org/name"),
    ):
        with pytest.raises(InputError, match="Hugging Face cache") as caught:
            reads(folder)
        assert said in str(caught.value)
    (repository / "refs" / "main").unlink()
    with pytest.raises(InputError, match=f"Point at {repository}/snapshots/{'f' * 40}"):
        reads(repository)


def test_a_name_of_the_cache_is_named_with_its_hub_id(tmp_path: Path) -> None:
    for name, id_ in (("models--org--name", "org/name"), ("models--gpt2", "gpt2"), ("models--o--a-b", "o/a-b")):
        with pytest.raises(ValueError, match=f"the Hub id, {id_}, "):
            find(name, [tmp_path])
