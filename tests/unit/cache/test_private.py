"""Folders with users' texts: for this user only, and gone with their process, however that ends."""

from __future__ import annotations

import os
import signal
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mar_pipeline import __main__ as command
from mar_pipeline.cache.store import Store
from mar_pipeline.cache.workspace import workspace
from mar_pipeline.files import private
from mar_pipeline.serving.logs import Logs


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@contextmanager
def child(make: Callable[[], Path]) -> Iterator[tuple[int, Path]]:
    """Another process that has made a folder, and sleeps until it is killed."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        os.write(write, os.fsencode(make()))
        os.close(write)
        signal.pause()
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as told:
        yield pid, Path(os.fsdecode(told.read()))
    kill(pid)


def kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        pass


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture(autouse=True)
def usual_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def scratch(store: Store) -> Callable[[], Path]:
    def make() -> Path:
        context = store.scratch()
        folder = context.__enter__()
        globals()["_kept_open"] = context
        private.write(folder / "job.json", b"a text")
        return folder

    return make


def test_a_file_is_readable_by_its_user_only_and_never_another_one(tmp_path: Path) -> None:
    private.write(tmp_path / "a", b"text")
    assert (mode(tmp_path / "a"), (tmp_path / "a").read_bytes()) == (0o600, b"text")
    (tmp_path / "b").symlink_to(tmp_path / "c")
    for place in ("a", "b"):
        with pytest.raises(FileExistsError):
            private.write(tmp_path / place, b"more")


def test_scratch_folders_are_for_their_user_only_and_go_at_the_end(tmp_path: Path) -> None:
    store = Store(tmp_path / "cache")
    with store.in_use(), store.scratch() as folder:
        assert mode(folder) == 0o700
    assert not folder.exists()


def test_what_a_killed_process_leaves_in_the_cache_goes_though_another_build_runs(tmp_path: Path) -> None:
    store = Store(tmp_path / "cache")
    with store.in_use(), child(scratch(store)) as (living, theirs), child(scratch(store)) as (killed, left):
        kill(killed)
        with store.in_use():
            assert not left.exists()
            assert (theirs / "job.json").exists()
        kill(living)
        with store.in_use():
            assert not theirs.exists()


@pytest.mark.parametrize(
    "words", [("plan", "--task", "seq_classification"), ("cache", "list"), ("cache", "gc", "--dry-run")], ids=str
)
def test_a_command_that_only_looks_removes_the_texts_of_a_killed_one_and_nothing_else(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    store = Store(tmp_path / "cache")
    with store.in_use(), child(scratch(store)) as (_, theirs), child(scratch(store)) as (killed, left):
        kill(killed)
        other = store.root / "tmp" / ("a" * 32)
        other.mkdir()
        command.run([*words, "--cache", str(store.root)])
        assert not left.exists()
        assert (theirs / "job.json").exists()
        assert other.exists()


def test_what_a_killed_process_leaves_in_the_temporary_folder_goes(temporary: Path) -> None:
    others = [temporary / name for name in ("mar-run-notes", "mar-run-0123456789abc", "x-mar-run-0123456789ab")]
    for folder in others:
        folder.mkdir()

    def make() -> Path:
        folder = private.in_temporary("run")
        private.write(folder.path / "job.json", b"a text")
        return folder.path

    with child(make) as (_, theirs), child(make) as (killed, left):
        kill(killed)
        with private.in_temporary("run") as ours:
            assert (mode(ours), ours.parent) == (0o700, temporary)
            assert not left.exists()
            assert (theirs / "job.json").exists()
    with private.in_temporary("serve"):
        assert not theirs.exists()
    assert sorted(temporary.iterdir()) == sorted(others)


def test_a_link_in_the_temporary_folder_leads_nowhere(temporary: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (temporary / "mar-run-0123456789ab").symlink_to(tmp_path / "mine")
    with private.in_temporary("run"):
        assert (tmp_path / "mine").is_dir()


def logs(folder: Path) -> Logs:
    folder.mkdir(mode=0o755, exist_ok=True)
    (folder / "model_log.log").write_text("a text")
    return Logs(folder, keep=None, python="python")


def test_kept_logs_are_for_their_user_only_and_outlive_the_server(temporary: Path, tmp_path: Path) -> None:
    kept = logs(tmp_path / "logs")
    folder = kept.keep()
    assert folder.parent == temporary
    assert kept.keep() == folder
    assert (mode(folder), mode(folder / "model_log.log")) == (0o700, 0o600)
    kept.close()
    with private.in_temporary("logs"):
        assert (folder / "model_log.log").read_text() == "a text"


def test_logs_of_a_killed_command_go_with_the_next_one(temporary: Path, tmp_path: Path) -> None:
    assert temporary
    with child(lambda: logs(tmp_path / "logs").keep()) as (pid, folder):
        with private.in_temporary("serve"):
            assert folder.exists()
        kill(pid)
        with private.in_temporary("serve"):
            assert not folder.exists()


@pytest.mark.parametrize("read_only", [True, False])
def test_a_command_works_in_the_temporary_folder_if_the_cache_cannot_be_written_to(
    temporary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read_only: bool
) -> None:
    store = Store(tmp_path / "cache", read_only=read_only)
    if not read_only:
        # As access(2) answers for a read-only file system, whoever asks.
        monkeypatch.setattr(os, "access", lambda path, _: not Path(path).is_relative_to(tmp_path))
    with workspace(store) as folder:
        assert folder.parent == temporary
    assert not folder.exists()
    assert not store.root.exists()


def test_a_command_works_in_the_cache_if_it_can(tmp_path: Path) -> None:
    store = Store(tmp_path / "cache")
    with workspace(store) as folder:
        assert folder.parent == store.root / "tmp"
    assert not folder.exists()
