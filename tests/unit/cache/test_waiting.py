"""Who waits for another process is told whose lock it is."""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from mar_pipeline.archive.model_store import folder_lock
from mar_pipeline.cache.store import Store
from mar_pipeline.errors import StageError
from mar_pipeline.files import waiting
from tests.unit.cache.test_private import child

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc/locks")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "PATIENCE", 0.2)


def locked(file: Path) -> Path:
    """Lock a file or a folder, for as long as the process lives."""
    fcntl.flock(os.open(file, os.O_RDONLY), fcntl.LOCK_EX)
    return file


def wait_for(told: list[str], count: int) -> None:
    limit = time.monotonic() + 5
    while len(told) < count and time.monotonic() < limit:
        time.sleep(0.02)
    assert len(told) == count, told


@pytest.mark.parametrize("what", ["key", "cache", "output"])
def test_a_waiting_build_says_whose_lock_it_waits_for_and_whether_that_is_stopped(tmp_path: Path, what: str) -> None:
    told: list[str] = []
    store = Store(tmp_path / "cache", warn=told.append)
    with store.in_use(), store.lock("a" * 64):
        pass
    contexts = {
        "key": (store.lock("a" * 64), tmp_path / "cache" / "locks" / f"{'a' * 64}.lock"),
        "cache": (store.in_use(), tmp_path / "cache" / "in-use.lock"),
        "output": (folder_lock(tmp_path, told.append), tmp_path),
    }
    context, file = contexts[what]
    done = threading.Event()

    def build() -> None:
        with context:
            done.set()

    with child(lambda: locked(file)) as (pid, _):
        thread = threading.Thread(target=build)
        thread.start()
        wait_for(told, 1)
        assert told[0].startswith("Waiting for ")
        assert f": process {pid}, since {time.strftime('%H:')}" in told[0]
        assert "stopped" not in told[0]
        os.kill(pid, signal.SIGSTOP)
        wait_for(told, 2)
        assert f"It is stopped: `kill -CONT {pid}`" in told[1]
        assert not done.is_set()
    thread.join(5)
    assert done.is_set()


def test_a_lock_that_is_free_is_taken_without_a_word(tmp_path: Path) -> None:
    told: list[str] = []
    store = Store(tmp_path / "cache", warn=told.append)
    with store.in_use(), store.lock("a" * 64), folder_lock(tmp_path, told.append):
        pass
    assert told == []


def test_a_file_system_without_locks_is_an_error_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise OSError(37, "No locks available")  # ENOLCK

    monkeypatch.setattr(fcntl, "flock", refused)
    with pytest.raises(StageError, match="does not support locks") as caught, Store(tmp_path / "cache").in_use():
        pass
    assert "--cache" in caught.value.fix
