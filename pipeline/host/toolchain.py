"""The environments with the Neuron compilers: where they are, which versions they have, and how to fix them."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from .. import ROOT
from ..errors import InputError
from ..portable.inspection import whole
from . import interpreters
from .chips import Chip

REPOSITORY = "https://pip.repos.neuron.amazonaws.com"
WORKER = ROOT / "portable" / "__main__.py"
"""The worker, which their interpreters run by its path."""
BESIDE = ("transformers", "safetensors", "tokenizers", "pyyaml")
"""The distributions that the worker needs beside the compiler's."""


def known(chip: Chip, root: Path = Path("/opt")) -> list[Path]:
    """The interpreters for a chip in the environments of AWS's machine images: the newest torch first, then the
    shortest name, which is the environment without other libraries."""

    def rank(python: Path) -> tuple[list[int], int]:
        name = python.parents[1].name
        return [-int(number) for number in re.findall(r"\d+", name)], len(name)

    candidates = (place / "bin" / "python" for place in root.glob(chip.places))
    return sorted((python for python in candidates if python.exists()), key=rank)


def interpreter(asked: str | None) -> str:
    """The path of the interpreter for `hardware.python`: a file, or an environment's folder; None is this interpreter.
    Raises InputError if there is no such file."""
    if asked is None:
        return sys.executable
    path = Path(asked).expanduser()
    inside = path.is_dir()
    if inside:
        path /= "bin/python"
    if not path.exists():
        raise InputError(
            f"hardware.python is {asked}, {'a folder without bin/python' if inside else 'and there is no such file'}.",
            fix="Name an environment's bin/python: `mar doctor` lists those of AWS's machine images, and "
            "docs/how-to/inferentia.md says how to make one.",
        )
    # Not resolved: an environment's interpreter is a link to another one.
    return str(Path.cwd() / path)


def started(asked: str | None) -> str:
    """Like `interpreter`, and runs it once. Raises InputError also if it does not run."""
    python = interpreter(asked)
    if python != sys.executable:
        interpreters.start(python)
    return python


def versions(python: str, names: Iterable[str]) -> dict[str, str]:
    """The versions of an interpreter and of the distributions `names` in its environment, "absent" for one that is not
    installed. They are read from files; nothing is run. Raises InputError if it is not in an environment."""
    release, path = interpreters.read(python)
    installed = {"python": release}
    for name in names:
        each = next(iter(metadata.distributions(name=name, path=list(path))), None)
        installed[name] = each.version if each else "absent"
    return installed


def tools(chip: Chip, asked: str | None) -> dict[str, str]:
    """The versions, for the cache key, of what compiles in the environment of `hardware.python`. Raises InputError if a
    distribution is missing."""
    python = interpreter(asked)
    present = versions(python, ("torch", chip.distribution, chip.compiler, *BESIDE))
    for name in (chip.distribution, chip.compiler):
        if present[name] == "absent":
            raise InputError(*_absent(chip, name, python))
    if missing := [name for name in BESIDE if present[name] == "absent"]:
        raise InputError(
            f"{python} has {chip.distribution}, but not {', '.join(missing)}.",
            "The model is loaded and compiled there, and the archive is run there, with these packages.",
            _pip(python, "install", *missing),
        )
    return {name: present[name] for name in ("python", "torch", "transformers", chip.distribution, chip.compiler)}


def _pip(python: str, *words: str) -> str:
    return shlex.join([python, "-m", "pip", *words])


def install(chip: Chip, python: str) -> str:
    """The command that installs a chip's packages for an interpreter. For the one that runs `mar` it makes another
    environment, since the packages need an older torch."""
    words = ("install", "--extra-index-url", REPOSITORY, *chip.packages)
    if python != sys.executable:
        return _pip(python, *words)
    return f"{chip.python} -m venv .venv-{chip.name} && {_pip(f'.venv-{chip.name}/bin/python', *words)}"


def _absent(chip: Chip, name: str, python: str) -> tuple[str, str, str]:
    what = f"handler.hardware is {chip.name}, and {python} has no {name}."
    why = f"It compiles for {chip.machines}, comes from AWS's own package repository, and needs torch {chip.torch}."
    if python != sys.executable:
        return what, why, install(chip, python)
    if there := known(chip):
        return what, why, f"This machine has an environment with it: set hardware.python: {there[0]}"
    return what, why, f"{install(chip, python)}; then hardware.python: .venv-{chip.name}/bin/python"


def inspect(
    chip: Chip, python: str, run: Callable[[Sequence[str], float], tuple[int, str] | None]
) -> dict[str, Any] | None:
    """The result of `portable.inspection.inspect` for an interpreter; None if there is none within a minute.
    `run(command, seconds)` starts it and returns its exit code and output (both streams), or None."""
    with TemporaryDirectory(prefix="mar-") as folder:
        job = Path(folder) / "job.json"
        job.write_text(json.dumps({"op": "inspect", "chip": asdict(chip)}), encoding="utf-8")
        done = run([python, str(WORKER), str(job)], 60.0)
    for line in reversed(done[1].splitlines() if done else []):
        if line.startswith('{"result": '):
            return dict(json.loads(line)["result"])
    return None


def trouble(chip: Chip, python: str, inspection: Mapping[str, Any]) -> tuple[str, str, str] | None:
    """What is wrong with an interpreter's environment, why, and the command that fixes it; None if nothing is wrong.
    `inspection` is the result of `inspect`."""
    if whole(inspection):
        return None
    for key, name in (("package", chip.distribution), ("compiler", chip.compiler)):
        state, version = inspection[key]["state"], inspection[key]["version"]
        if state == "absent":
            return _absent(chip, name, python)
        if state == "placeholder":
            return (
                f"{name} {version} of {python} is the package index's placeholder of that name, not the real one.",
                "pip installs it if it is called without AWS's package repository (--extra-index-url).",
                f"{_pip(python, 'uninstall', '-y', name)}; {install(chip, python)}",
            )
        if state == "broken":
            return (
                f"{name} {version} of {python} cannot be imported: {inspection[key]['error']}",
                f"It was built for another torch than {inspection['torch']}, or a package that it needs is missing."
                if inspection["torch"]
                else "That environment has no torch.",
                install(chip, python),
            )
    version, torch = inspection["package"]["version"], inspection["torch"]
    line = ".".join(str(version).split(".")[:2])
    pair = (f"torch=={line}.*", f"{chip.distribution}=={line}.*")
    return (
        f"{chip.distribution} {version} of {python} was built for torch {line}, and torch {torch} is installed.",
        "Another package has upgraded torch since then.",
        # mar itself needs this interpreter's torch.
        install(chip, python)
        if python == sys.executable
        else _pip(python, "install", "--extra-index-url", REPOSITORY, *pair),
    )
