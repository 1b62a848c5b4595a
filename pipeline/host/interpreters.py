"""Python interpreters of other environments: their version and package folders, read without running them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from ..errors import InputError
from ..files.opening import read_text
from .environment import environment


def _none(python: str, reason: str, why: str = "") -> InputError:
    return InputError(
        f"hardware.python is {python}, which is not the Python of an environment: {reason}",
        why,
        "Set it to an environment's bin/python; `mar doctor` lists those of AWS's machine images.",
    )


@lru_cache
def read(python: str) -> tuple[str, tuple[str, ...]]:
    """The version of an interpreter ("3.11") and its package folders, from the files around it, without running it.

    Raises InputError if those are missing.
    """
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
    existing = list(dict.fromkeys(folder.resolve() for folder in folders if folder.is_dir()))
    if not release or not existing:
        raise _none(
            python,
            f"there is no {root}/lib/python{release or '3.*'}/site-packages",
            "Its packages' versions are read there: a program from a config does not run before a build.",
        )
    return release, (*more, *(str(path) for folder in existing for path in (folder, *_linked(folder))))


def _settings(file: Path) -> dict[str, str] | None:
    """The settings in a virtual environment's pyvenv.cfg; None if it cannot be read."""
    try:
        lines = read_text(file).splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    return {name.strip().lower(): value.strip() for name, _, value in (line.partition("=") for line in lines)}


def _release(text: str) -> str:
    match = re.search(r"3\.\d+", text)
    return match[0] if match else ""


def _base(python: Path) -> tuple[str, list[Path]]:
    """Version and package folders of an interpreter outside of virtual environments: the system's or conda's."""
    root = python.parent.parent
    releases = sorted(_release(folder.name) for folder in root.glob("lib/python3.*") if folder.is_dir())
    release = _release(python.name) or (releases[0] if len(releases) == 1 else "")
    # Debian uses dist-packages, and local/ for pip's packages.
    places = [root / "local" / "lib" / f"python{release}", root / "lib" / f"python{release}", root / "lib" / "python3"]
    folders = [place / name for place in places for name in ("site-packages", "dist-packages")]
    if not os.environ.get("PYTHONNOUSERSITE"):
        folders.insert(0, Path.home() / ".local" / "lib" / f"python{release}" / "site-packages")
    return release if any(folder.is_dir() for folder in folders[1:]) else "", folders


def _linked(folder: Path) -> list[Path]:
    """The folders that the .pth files of a site-packages list (docs.python.org/3/library/site.html). Their code lines
    are not run."""
    linked = []
    for file in sorted(folder.glob("*.pth")):
        with suppress(OSError, UnicodeDecodeError):
            lines = [line.strip() for line in read_text(file).splitlines()]
            linked += [folder / line for line in lines if line and not line.startswith(("#", "import ", "import\t"))]
    return [path for path in linked if path.is_dir()]


@lru_cache
def start(python: str) -> None:
    """Run an interpreter once. Raises InputError if it fails, or is not of the version that its files say."""
    try:
        process = subprocess.run(
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
    answer = process.stdout.strip()
    if process.returncode:
        raise _none(python, (process.stderr.splitlines() or [f"it ended with exit code {process.returncode}"])[-1])
    if answer != read(python)[0]:
        raise _none(python, f"its files say Python {read(python)[0]}, and it answers {answer[:20]!r}")
