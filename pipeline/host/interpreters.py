"""Interpreters of other environments: what their files tell of them without running them, and whether they run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from ..errors import InputError
from .environment import environment


def _none(python: str, reason: str, why: str = "") -> InputError:
    return InputError(
        f"hardware.python is {python}, which is not the Python of an environment: {reason}",
        why,
        "Name an environment's bin/python; `mar doctor` lists those of AWS's machine images.",
    )


@lru_cache
def read(python: str) -> tuple[str, tuple[str, ...]]:
    """The version (3.11) of an interpreter, and where it looks for packages, by the files around it: it is not started.
    Raises InputError if they do not tell."""
    more = tuple(part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part)
    if python == sys.executable:
        here = {"", str(Path.cwd())}
        return "{}.{}".format(*sys.version_info), tuple(path for path in sys.path if path not in here)
    if not os.access(python, os.X_OK):
        raise _none(python, "it cannot be run")
    root = Path(python).parent.parent
    settings = _settings(root / "pyvenv.cfg")
    if settings is None:
        release, folders = _base(Path(python).resolve())
    else:
        release = _release(settings.get("version") or settings.get("version_info", ""))
        folders = [root / lib / f"python{release}" / "site-packages" for lib in ("lib", "lib64")]
        if settings.get("include-system-site-packages", "").lower() == "true":
            folders += _base(Path(settings.get("home", ""), f"python{release}"))[1]
    found = list(dict.fromkeys(folder.resolve() for folder in folders if folder.is_dir()))
    if not release or not found:
        raise _none(
            python,
            f"there is no {root}/lib/python{release or '3.*'}/site-packages",
            "Its packages' versions are read there: a program that a config names does not run before a build.",
        )
    return release, (*more, *(str(path) for folder in found for path in (folder, *_linked(folder))))


def _settings(file: Path) -> dict[str, str] | None:
    """What a virtual environment's pyvenv.cfg says; None if there is none."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    return {name.strip().lower(): value.strip() for name, _, value in (line.partition("=") for line in lines)}


def _release(text: str) -> str:
    found = re.search(r"3\.\d+", text)
    return found[0] if found else ""


def _base(python: Path) -> tuple[str, list[Path]]:
    """The same of an interpreter that is in no virtual environment: a system's, or conda's."""
    root = python.parent.parent
    known = sorted(_release(folder.name) for folder in root.glob("lib/python3.*") if folder.is_dir())
    release = _release(python.name) or (known[0] if len(known) == 1 else "")
    # Debian has its own names, and pip's packages below local/.
    places = [root / "local" / "lib" / f"python{release}", root / "lib" / f"python{release}", root / "lib" / "python3"]
    folders = [place / name for place in places for name in ("site-packages", "dist-packages")]
    if not os.environ.get("PYTHONNOUSERSITE"):
        folders.insert(0, Path.home() / ".local" / "lib" / f"python{release}" / "site-packages")
    return release if any(folder.is_dir() for folder in folders[1:]) else "", folders


def _linked(folder: Path) -> list[Path]:
    """The folders that the .pth files of a site-packages name (docs.python.org/3/library/site.html). Those lines of
    theirs that are code are not run."""
    found = []
    for file in sorted(folder.glob("*.pth")):
        with suppress(OSError, UnicodeDecodeError):
            lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
            found += [folder / line for line in lines if line and not line.startswith(("#", "import ", "import\t"))]
    return [path for path in found if path.is_dir()]


@lru_cache
def start(python: str) -> None:
    """Raises InputError if an interpreter does not run, or is another than its files say."""
    try:
        done = subprocess.run(
            [python, "-c", "import sys; print(*sys.version_info[:2], sep='.')"],
            env=environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=60,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _none(python, getattr(error, "strerror", None) or "it does not answer") from None
    said = done.stdout.strip()
    if done.returncode:
        raise _none(python, (done.stderr.splitlines() or [f"it ended with exit code {done.returncode}"])[-1])
    if said != read(python)[0]:
        raise _none(python, f"its files say Python {read(python)[0]}, and it answers {said[:20]!r}")
