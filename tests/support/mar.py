"""The command `mar`, as tests run it."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

from mar_pipeline.cache.store import Store
from mar_pipeline.tasks import TASKS

from .zygote import UNTIL, Zygote

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

    The process is forked off one that has imported the package, and so are its workers. With `process`, it is a program
    of its own, which starts its workers as it does for users.
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

    def build(self, *words: Any, process: bool = False, **env: str) -> list[dict[str, Any]]:
        """`mar build ... --json`; its archives. Fails the test if the command fails."""
        done = self("build", *words, "--out", self.out, "--json", process=process, **env)
        assert done.returncode == 0, done.stderr
        return list(json.loads(done.stdout)["archives"])

    def packed(self, *words: Any, **env: str) -> list[dict[str, Any]]:
        """Like `build`, but each build ends when its archive is packed. The archive is not verified, and not in the
        output folder; `path` is a copy of it."""
        archives = self.build(*words, **env, **{UNTIL: "archive"})
        for archive in archives:
            assert [stage["stage"] for stage in archive["stages"]][-1] == "archive"
            archive["path"] = str(self.folder / f"{archive['name']}-{archive['sha256'][:8]}.mar")
            shutil.copyfile(Store(Path(env.get("MAR_CACHE", self.cache))).blob(archive["sha256"]), archive["path"])
        return archives

    def plan(self, *words: Any, **env: str) -> dict[str, dict[str, Any]]:
        """`mar plan ... --json`; the stages of its one archive by name."""
        done = self("plan", *words, "--out", self.out, "--json", **env)
        assert done.returncode == 0, done.stderr
        (archive,) = json.loads(done.stdout)["archives"]
        return {stage["stage"]: stage for stage in archive["stages"]}


def words(task: str, mode: str) -> tuple[str, ...]:
    """What names a starter's archive of a mode on the command line."""
    return ("--task", task, "--save-mode", mode, "--set", f"archive.name={task}-{mode}")


def refused(mar: Mar, folder: Path, words: tuple[Any, ...], *said: str, **env: str) -> None:
    """A build into `folder`/refused that ends with exit code 2, at most three lines that have all of `said`, and no
    output."""
    done = mar("build", *words, "--out", folder / "refused", **env)
    assert done.returncode == 2, done.stderr
    error = done.stderr[done.stderr.index("error:") :].strip()
    assert all(part in error for part in said), error
    assert len(error.splitlines()) <= 3, error
    assert not (folder / "refused").exists()
