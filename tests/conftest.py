"""What tests of several modules share."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from tests.support import tiny
from tests.support.mar import KINDS, Mar, words

# Two cores are what CI has; torch's threads would only fight for them.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell starts what it runs in the background with Ctrl-C ignored, and that would be handed on to what tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the slow tests under long/ as `long`: kills, every family, the stand-ins' own tests, other environments.
    `make test` leaves them out."""
    for item in items:
        if item.nodeid.startswith("tests/long/") and item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.long)


@pytest.fixture(scope="session")
def mar(tmp_path_factory: pytest.TempPathFactory) -> Mar:
    """One for tests that may share a cache."""
    return Mar(tmp_path_factory.mktemp("mar"))


@pytest.fixture(scope="session")
def built(mar: Mar, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], dict[str, Any]]:
    """Every starter, built in both modes into one output folder. Processes that test side by side build them once."""
    base = tmp_path_factory.getbasetemp()
    first = Mar((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "starters")
    with FileLock(f"{first.folder}.lock"):
        if not first.folder.exists():
            first.folder.mkdir()
            for kind in KINDS:
                first.build(*words(*kind))
    shutil.copytree(first.cache, mar.cache, dirs_exist_ok=True)
    return {kind: mar.build(*words(*kind))[0] for kind in KINDS}


@pytest.fixture
def fresh_mar(tmp_path: Path) -> Mar:
    """One with an empty cache."""
    return Mar(tmp_path)


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT with a head for two labels, and random weights."""
    return tiny.save(tmp_path_factory.mktemp("checkpoints") / "bert", "bert", "seq_classification")
