"""Links in a checkpoint's folder: those that lead out are refused, but for the Hugging Face cache's own."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mar_pipeline.cache.store import Store
from mar_pipeline.errors import InputError, StageError
from mar_pipeline.model.address import find
from mar_pipeline.sources.folder import Folder

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SECRET = b"aws_secret_access_key = CANARY"
CONFIG = b'{"model_type": "bert"}'


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    file = tmp_path / "home" / "credentials"
    file.parent.mkdir()
    file.write_bytes(SECRET)
    return file


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "0_Transformer").mkdir(parents=True)
    (folder / "config.json").write_bytes(CONFIG)
    (folder / "0_Transformer" / "config.json").write_bytes(CONFIG)
    return folder


def source(folder: Path, kind: str = "folder") -> Folder:
    return Folder(Store(folder.parent / "cache"), folder, str(folder), {"kind": kind})


def fetch(folder: Path, path: str) -> bytes:
    """A file as the build takes it: its bytes, which are held against its digest."""
    import hashlib

    (found,) = source(folder).fetch({path: path}, lambda *_: None)
    assert found.place is not None
    data = Path(found.place).read_bytes()
    assert hashlib.sha256(data).hexdigest() == found.entry.sha256
    return data


@contextmanager
def within(seconds: int) -> Iterator[None]:
    def late(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def linked(model: Path, secret: Path) -> None:
    (model / "vocab.txt").symlink_to(secret)


def by_relative_path(model: Path, secret: Path) -> None:
    (model / "vocab.txt").symlink_to(os.path.relpath(secret, model))


def in_a_chain(model: Path, secret: Path) -> None:
    (model / "inside").symlink_to(secret)
    (model / "vocab.txt").symlink_to("inside")


def by_a_folder(model: Path, secret: Path) -> None:
    (model / "more").symlink_to(secret.parent)
    (model / "vocab.txt").symlink_to("more/credentials")


def through_proc(model: Path, _secret: Path) -> None:
    (model / "vocab.txt").symlink_to("/proc/self/environ")


def beside_a_name_that_begins_alike(model: Path, secret: Path) -> None:
    beside = model.with_name(model.name + "-private")
    beside.mkdir()
    (model / "vocab.txt").symlink_to(shutil.copy(secret, beside))


OUT: list[Callable[[Path, Path], None]] = [
    linked, by_relative_path, in_a_chain, by_a_folder, through_proc, beside_a_name_that_begins_alike,
]  # fmt: skip


@pytest.mark.parametrize("make", OUT, ids=lambda make: make.__name__)
def test_a_link_out_of_the_folder_is_refused_with_what_to_do(
    model: Path, secret: Path, make: Callable[[Path, Path], None]
) -> None:
    make(model, secret)
    ways: list[Callable[[], object]] = [
        lambda: source(model).text("vocab.txt"),
        lambda: source(model).identity({"vocab.txt": "vocab.txt"}),
        lambda: fetch(model, "vocab.txt"),
    ]
    for way in ways:
        with pytest.raises(InputError) as error:
            way()
        assert str(model / "vocab.txt") in error.value.what
        assert f"cp -rL {model}" in error.value.fix
        assert b"CANARY" not in str(error.value).encode()


def test_a_folder_that_is_a_link_out_is_refused(model: Path, secret: Path) -> None:
    shutil.copytree(model / "0_Transformer", secret.parent / "transformer")
    (model / "1_Transformer").symlink_to(secret.parent / "transformer")
    with pytest.raises(InputError, match="out of the folder"):
        fetch(model, "1_Transformer/config.json")


def test_a_model_card_that_is_a_link_out_is_not_read(model: Path, secret: Path) -> None:
    secret.write_text("---\nlicense: CANARY\n---\n")
    (model / "README.md").symlink_to(secret)
    with pytest.raises(InputError, match=r"README\.md is a link out of the folder"):
        source(model).license()


def test_a_link_that_nothing_needs_does_no_harm(model: Path, secret: Path) -> None:
    (model / "optimizer.pt").symlink_to(secret)
    (model / "latest").symlink_to("checkpoint-90")
    assert fetch(model, "config.json") == CONFIG


@pytest.mark.parametrize(
    "target", ["0_Transformer/config.json", "../model/0_Transformer/config.json", "more/config.json"]
)
def test_a_link_that_stays_in_the_folder_is_followed(model: Path, target: str) -> None:
    (model / "more").symlink_to("0_Transformer")
    (model / "config.json").unlink()
    (model / "config.json").symlink_to(target)
    assert fetch(model, "config.json") == CONFIG
    assert source(model).text("config.json") == CONFIG.decode()


def test_the_folder_itself_may_be_given_by_a_link(model: Path, tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to(model)
    found = source(tmp_path / "current")
    found.fetch({"config.json": "config.json"}, lambda *_: None)
    assert found.identity({"config.json": "config.json"})["files"]["config.json"]


def snapshot(tmp_path: Path, commit: str = COMMIT, repository: str = "models--acme--bert") -> Path:
    """A snapshot as huggingface_hub lays it out, by its own function."""
    from huggingface_hub.file_download import _create_symlink

    home = tmp_path / "hub" / repository
    (home / "blobs").mkdir(parents=True)
    for path, etag in (("config.json", "a" * 40), ("0_Transformer/config.json", "b" * 64)):
        (home / "blobs" / etag).write_bytes(CONFIG)
        pointer = home / "snapshots" / commit / path
        pointer.parent.mkdir(parents=True, exist_ok=True)
        _create_symlink(str(home / "blobs" / etag), str(pointer), new_blob=False)
    return home / "snapshots" / commit


def test_a_snapshot_of_the_hugging_face_cache_is_taken(tmp_path: Path) -> None:
    folder = snapshot(tmp_path)
    assert (folder / "config.json").is_symlink()
    for path in ("config.json", "0_Transformer/config.json"):
        assert fetch(folder, path) == CONFIG
    assert fetch(folder / "0_Transformer", "config.json") == CONFIG
    (tmp_path / "link").symlink_to(folder)
    assert fetch(tmp_path / "link", "config.json") == CONFIG


@pytest.mark.parametrize("broken", ["no commit", "no repository", "another file", "blobs elsewhere", "below blobs"])
def test_what_only_looks_like_such_a_snapshot_is_refused(tmp_path: Path, secret: Path, broken: str) -> None:
    names = {"no commit": {"commit": "main"}, "no repository": {"repository": "acme"}}.get(broken, {})
    folder = snapshot(tmp_path, **names)
    blobs = folder.parent.parent / "blobs"
    if broken == "another file":
        (blobs / ("a" * 40)).unlink()
        (blobs / ("a" * 40)).symlink_to(secret)
    if broken == "blobs elsewhere":
        (secret.parent / ("a" * 40)).write_bytes(SECRET)
        shutil.rmtree(blobs)
        blobs.symlink_to(secret.parent)
    if broken == "below blobs":
        (blobs / "ssh").symlink_to(secret.parent)
        (folder / "config.json").unlink()
        (folder / "config.json").symlink_to(f"../../blobs/ssh/{secret.name}")
    with pytest.raises(InputError, match="out of the folder"):
        fetch(folder, "config.json")


@pytest.mark.parametrize("how", ["gone", "circle", "snapshot"])
def test_a_link_that_leads_nowhere_is_told_as_such(model: Path, tmp_path: Path, how: str) -> None:
    folder = model
    if how == "snapshot":  # copied without its blobs
        folder = Path(shutil.copytree(snapshot(tmp_path), tmp_path / "copy", symlinks=True))
    else:
        (model / "config.json").unlink()
        (model / "config.json").symlink_to("config.json" if how == "circle" else "nowhere")
    assert "config.json" in source(folder).sizes()
    with pytest.raises(InputError, match="is a broken link") as error:
        source(folder).text("config.json")
    assert "cp -rL" in error.value.fix


@pytest.mark.parametrize("what", ["fifo", "/dev/zero", "/dev/stdin"])
def test_devices_and_pipes_are_no_files_of_a_checkpoint(model: Path, what: str) -> None:
    if what == "fifo":
        os.mkfifo(model / "vocab.txt")
    else:
        (model / "vocab.txt").symlink_to(what)
    with within(5):
        assert "vocab.txt" not in source(model).sizes()
        assert fetch(model, "config.json") == CONFIG


def test_a_file_that_becomes_a_link_while_it_is_read_is_not_followed(
    model: Path, secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (model / "vocab.txt").write_bytes(b"[PAD]\n")
    there = Folder._file

    def swapped(self: Folder, path: str) -> Path:
        file = there(self, path)
        (model / "vocab.txt").unlink()
        (model / "vocab.txt").symlink_to(secret)
        return file

    monkeypatch.setattr(Folder, "_file", swapped)
    with pytest.raises(StageError, match=r"vocab\.txt changed during the build"):
        fetch(model, "vocab.txt")


def test_a_file_address_is_a_folder_with_the_same_rule(model: Path, secret: Path) -> None:
    linked(model, secret)
    found = find(model.as_uri(), [Path()])
    assert found.path is not None
    with pytest.raises(InputError, match="out of the folder"):
        fetch(found.path, "vocab.txt")


def test_the_starters_are_taken_as_their_installer_has_them(model: Path, tmp_path: Path) -> None:
    # uv can be told to make links into its cache.
    (tmp_path / "cached").write_bytes(CONFIG)
    (model / "config.json").unlink()
    (model / "config.json").symlink_to(tmp_path / "cached")
    assert source(model, "starter").text("config.json") == CONFIG.decode()
