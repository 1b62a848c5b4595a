"""The environments that the Neuron compilers live in: where they are, what they have, and how to mend them."""

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
"""What runs there by its path."""
BESIDE = ("transformers", "safetensors", "tokenizers", "pyyaml")
"""What it needs there beside the compiler's packages."""


def known(chip: Chip, root: Path = Path("/opt")) -> list[Path]:
    """The interpreters for a chip where AWS's machine images have them, the newest torch first, plain ones before those
    with more in them."""

    def rank(python: Path) -> tuple[list[int], int]:
        name = python.parents[1].name
        return [-int(number) for number in re.findall(r"\d+", name)], len(name)

    found = (place / "bin" / "python" for place in root.glob(chip.places))
    return sorted((python for python in found if python.exists()), key=rank)


def interpreter(asked: str | None) -> str:
    """The interpreter that `hardware.python` means. Raises InputError if there is none."""
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
    """The same, for a build, which runs it. Raises InputError too if it does not run."""
    python = interpreter(asked)
    if python != sys.executable:
        interpreters.start(python)
    return python


def versions(python: str, names: Iterable[str]) -> dict[str, str]:
    """Its Python's and its distributions' versions ("absent" if there is none), read off its folders. Raises InputError
    if it is in no environment."""
    release, path = interpreters.read(python)
    found = {"python": release}
    for name in names:
        each = next(iter(metadata.distributions(name=name, path=list(path))), None)
        found[name] = each.version if each else "absent"
    return found


def tools(chip: Chip, asked: str | None) -> dict[str, str]:
    """Of that environment: the versions that decide what is compiled. Raises InputError without the packages."""
    python = interpreter(asked)
    found = versions(python, ("torch", chip.distribution, chip.compiler, *BESIDE))
    for name in (chip.distribution, chip.compiler):
        if found[name] == "absent":
            raise InputError(*_absent(chip, name, python))
    if lost := [name for name in BESIDE if found[name] == "absent"]:
        raise InputError(
            f"{python} has {chip.distribution}, and no {' and no '.join(lost)}.",
            "The model is made and compiled there, and the archive tried: by these.",
            _pip(python, "install", *lost),
        )
    return {name: found[name] for name in ("python", "torch", "transformers", chip.distribution, chip.compiler)}


def _pip(python: str, *words: str) -> str:
    return shlex.join([python, "-m", "pip", *words])


def install(chip: Chip, python: str) -> str:
    """The command that installs a chip's packages for an interpreter: in an environment of their own, where it is the
    one that runs `mar`, since they need an older torch."""
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
    """What `neuron.inspect` says of an interpreter, which `run` starts (its output is both streams'); None if it
    says nothing within a minute."""
    with TemporaryDirectory(prefix="mar-") as folder:
        job = Path(folder) / "job.json"
        job.write_text(json.dumps({"op": "inspect", "chip": asdict(chip)}), encoding="utf-8")
        done = run([python, str(WORKER), str(job)], 60.0)
    for line in reversed(done[1].splitlines() if done else []):
        if line.startswith('{"result": '):
            return dict(json.loads(line)["result"])
    return None


def trouble(chip: Chip, python: str, found: Mapping[str, Any]) -> tuple[str, str, str] | None:
    """What is wrong with an interpreter's environment, by what `neuron.inspect` says of it: what, why, and the
    command that mends it. None if nothing is."""
    if whole(found):
        return None
    for key, name in (("package", chip.distribution), ("compiler", chip.compiler)):
        state, version = found[key]["state"], found[key]["version"]
        if state == "absent":
            return _absent(chip, name, python)
        if state == "placeholder":
            return (
                f"{name} {version} of {python} is the package index's placeholder of that name, not the real one.",
                "pip takes it where it is not told of AWS's package repository.",
                f"{_pip(python, 'uninstall', '-y', name)}; {install(chip, python)}",
            )
        if state == "broken":
            return (
                f"{name} {version} of {python} does not import: {found[key]['error']}",
                f"It was made for another torch than {found['torch']}, or something that it needs is gone."
                if found["torch"]
                else "That environment has no torch.",
                install(chip, python),
            )
    version, torch = found["package"]["version"], found["torch"]
    line = ".".join(str(version).split(".")[:2])
    pair = (f"torch=={line}.*", f"{chip.distribution}=={line}.*")
    return (
        f"{chip.distribution} {version} of {python} was made for torch {line}, and there is torch {torch}.",
        "Another package has upgraded torch since.",
        # Ours needs its torch.
        install(chip, python)
        if python == sys.executable
        else _pip(python, "install", "--extra-index-url", REPOSITORY, *pair),
    )
