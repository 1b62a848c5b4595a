"""What tests of several modules share."""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from mar_pipeline.tasks import TASKS
from tests import tiny
from tests.zygote import Zygote

# Two cores are what CI has; torch's threads would only fight for them.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell starts what it runs in the background with Ctrl-C ignored, and that would be handed on to what tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)


# Kills, every family, the stand-ins' own tests, and other environments: `make test-all` runs them too.
LONG = (
    "tests/families/",
    "tests/handlers/test_older_pipeline.py",
    "tests/starters/",
    "tests/test_hub_stand_in.py",
    "tests/test_neuron_stand_in.py",
    "tests/torture/",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the slow tests of these as `long`."""
    for item in items:
        if item.nodeid.startswith(LONG) and item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.long)


MODES = ("pretrained", "torchscript")
KINDS = [(task, mode) for task in TASKS for mode in MODES]


@cache
def zygote() -> Zygote:
    """The process that commands are forked from."""
    started = Zygote()
    atexit.register(started.close)
    return started


class Mar:
    """The command line, in a process of its own, with a cache and an output folder of its own.

    The process is forked off one that has imported the package. With `process`, it is a program of its own.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.cache, self.out = folder, folder / "cache", folder / "build"
        self.env = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hf"), "MAR_CACHE": str(self.cache)}

    def __call__(self, *words: Any, process: bool = False, **env: str) -> subprocess.CompletedProcess[str]:
        arguments, environment = [str(word) for word in words], {**os.environ, **self.env, **env}
        if not process and (done := zygote().command(arguments, self.folder, environment)):
            return done
        return subprocess.run(
            [sys.executable, "-m", "mar_pipeline", *arguments],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=500,
        )

    def build(self, *words: Any, **env: str) -> list[dict[str, Any]]:
        """`mar build ... --json`; its archives. Fails the test if the command fails."""
        done = self("build", *words, "--out", self.out, "--json", **env)
        assert done.returncode == 0, done.stderr
        return list(json.loads(done.stdout)["archives"])

    def plan(self, *words: Any, **env: str) -> dict[str, dict[str, Any]]:
        """`mar plan ... --json`; the stages of its one archive by name."""
        done = self("plan", *words, "--out", self.out, "--json", **env)
        assert done.returncode == 0, done.stderr
        (archive,) = json.loads(done.stdout)["archives"]
        return {stage["stage"]: stage for stage in archive["stages"]}


@pytest.fixture(scope="session")
def mar(tmp_path_factory: pytest.TempPathFactory) -> Mar:
    """One for tests that may share a cache."""
    return Mar(tmp_path_factory.mktemp("mar"))


def words(task: str, mode: str) -> tuple[str, ...]:
    """What names a starter's archive of a mode on the command line."""
    return ("--task", task, "--save-mode", mode, "--set", f"archive.name={task}-{mode}")


@pytest.fixture(scope="session")
def built(mar: Mar) -> dict[tuple[str, str], dict[str, Any]]:
    """Every starter, built in both modes into one output folder."""
    return {kind: mar.build(*words(*kind))[0] for kind in KINDS}


@pytest.fixture
def fresh_mar(tmp_path: Path) -> Mar:
    """One with an empty cache."""
    return Mar(tmp_path)


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT with a head for two labels, and random weights."""
    return tiny.save(tmp_path_factory.mktemp("checkpoints") / "bert", "bert", "seq_classification")
