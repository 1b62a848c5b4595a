"""AWS's package that runs compiled graphs, as it is in the environment that serves; and why a graph does not run."""

from __future__ import annotations

import importlib
import os
import re
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from . import CHIPS
from .weights import damaged

REPOSITORY = "https://pip.repos.neuron.amazonaws.com"

_CORES = "NEURON_RT_NUM_CORES"
_CHOSEN = "NEURON_RT_VISIBLE_CORES"


class Package:
    """The package that graphs were compiled by, which graph.json's `facts` name with its version."""

    def __init__(self, facts: dict[str, Any]) -> None:
        self.module, self.distribution, self.machines = CHIPS[facts["device"]]
        self.cores = facts["cores"]
        self.compiled = {name: facts["versions"].get(name) for name in (self.distribution, "torch")}
        self.here = {self.distribution: _version(self.distribution), "torch": torch.__version__}

    def imported(self) -> Any:
        """The package, told beforehand how many NeuronCores are this process's. Raises ImportError or RuntimeError if
        it is not there, is not the real one, or is of another line of releases than the graphs."""
        self._take_cores()
        package: Any = None
        error: Exception | None = None
        try:
            package = importlib.import_module(self.module)
        except Exception as raised:  # what a package raises that does not fit its surroundings can be anything
            error = raised
        version, gone = self.here[self.distribution], getattr(error, "name", None) == self.module
        if gone and version is None:
            raise ImportError(
                f"{self.distribution} is not installed, and this archive's graphs run by it: "
                f"{self._install(self.distribution)}, which is the environment that serves"
            )
        # The package index has packages of these names that are none.
        if gone or "WRONG PACKAGE" in str(error) or not (error or hasattr(package, "trace")):
            raise ImportError(
                f"{self.distribution} {version} is the package index's placeholder of that name, not AWS's package: "
                f"{sys.executable} -m pip uninstall -y {self.distribution}; {self._install(self.distribution)}"
            ) from error
        for name, compiled, here in self._different(2):
            raise RuntimeError(
                f"this graph was compiled by {name} {compiled} and this server has {here}: {self._install(name)}, or "
                "build the archive again by the server's"
            ) from error
        if error:
            raise ImportError(
                f"{self.distribution} {version} does not import beside torch {torch.__version__}: {_line(error)}"
            ) from error
        return package

    def _take_cores(self) -> None:
        """By the number that the runtime reads when the package is imported: unset, it would take every core of the
        machine, and the next worker would find none."""
        if os.environ.get(_CHOSEN):
            return
        if self.module not in sys.modules:
            os.environ[_CORES] = str(self.cores)
        elif os.environ.get(_CORES, "0") in ("", "0"):
            raise RuntimeError(
                f"{self.module} was imported before {_CORES} was set, so this worker would take every NeuronCore: set "
                f"{_CORES}={self.cores} for the server, or import the package no earlier than this archive does"
            )

    def _different(self, numbers: int | None) -> list[tuple[str, str, str]]:
        """Name, version at compiling and version here of what differs in its first `numbers`, or anywhere."""
        pairs = [(name, self.compiled[name], self.here[name]) for name in self.compiled]
        return [
            (name, compiled, here)
            for name, compiled, here in pairs
            if compiled and here and _numbers(compiled, numbers) != _numbers(here, numbers)
        ]

    def _install(self, name: str, numbers: int | None = 2) -> str:
        """The command that installs a distribution in the release that the graphs were compiled by, or one of which the
        first `numbers` are the same."""
        wanted = name
        if self.compiled[name]:
            release = ".".join(_numbers(self.compiled[name], numbers))
            wanted = f"'{name}=={release}.*'" if numbers else f"'{name}=={release}'"
        return f"{sys.executable} -m pip install --extra-index-url {REPOSITORY} {wanted}"

    def failed(self, file: Path, error: Exception) -> Exception:
        """Why a graph could not be loaded, or run for the first time, by what was raised."""
        if "PytorchStreamReader" in str(error):
            return damaged(file, _line(error).split(". ")[0])  # newer torch goes on about how that may come
        if not chips():
            return RuntimeError(
                f"there is no NeuronCore here (no /dev/neuron0), and this archive was compiled for {self.machines}: "
                "serve it on such a machine, with AWS's driver, and let a container have the device "
                "(--device=/dev/neuron0)"
            )
        # The runtime's words, and those of DataParallel.
        if re.search(r"(could not|cannot) be initialized", str(error)):
            chosen = os.environ.get(_CHOSEN)
            asked = f"cores {chosen} ({_CHOSEN})" if chosen else f"{os.environ.get(_CORES)} ({_CORES})"
            return RuntimeError(
                f"no NeuronCore is free for this worker, which asked for {asked}: a core belongs to one process, and "
                "there are more workers than cores (maxWorkers), or another process has them (neuron-ls shows it)"
            )
        for name, compiled, here in self._different(None):
            return RuntimeError(
                f"{file.name} was compiled by {name} {compiled}, this server has {here}, and it does not run there: "
                f"{_line(error)}; {self._install(name, None)}, or build the archive again by the server's"
            )
        return RuntimeError(f"{file.name} does not run by {self.distribution}: {_line(error)}")


def chips() -> list[str]:
    """The Neuron driver's files, one a chip."""
    # Not a pattern of names: other files of the driver's are of no chip.
    return [name for name in os.listdir("/dev") if re.fullmatch(r"neuron\d+", name)]  # noqa: PTH208


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _numbers(version: str, count: int | None) -> list[str]:
    """The first numbers of a version, or all, less what names its build."""
    return version.split("+")[0].split(".")[:count]


def _line(error: BaseException) -> str:
    """What an error says, in a line: the first, unless the interpreter of graphs puts its own traceback before it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    return lines[-1 if "in the TorchScript interpreter" in lines[0] else 0][:300]
