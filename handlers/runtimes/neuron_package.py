"""The AWS package that runs compiled graphs: imports it, and explains why it, or a graph, does not load."""

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
    """The package that graphs were compiled by. `facts` is graph.json, which has its version."""

    def __init__(self, facts: dict[str, Any]) -> None:
        self.module, self.distribution, self.machines = CHIPS[facts["device"]]
        self.cores = facts["cores"]
        self.compiled = {name: facts["versions"].get(name) for name in (self.distribution, "torch")}
        self.here = {self.distribution: _version(self.distribution), "torch": torch.__version__}

    def imported(self) -> Any:
        """Import the package, after setting how many NeuronCores this process takes. Raises ImportError or RuntimeError
        if it is not installed, is a placeholder, or has another minor version than the graphs."""
        self._take_cores()
        package: Any = None
        error: Exception | None = None
        try:
            package = importlib.import_module(self.module)
        except Exception as raised:  # importing a package beside another torch can raise anything
            error = raised
        version, gone = self.here[self.distribution], getattr(error, "name", None) == self.module
        if gone and version is None:
            raise ImportError(
                f"{self.distribution} is not installed on this server, and this archive's graphs need it: "
                f"{self._install(self.distribution)}"
            )
        # The public package index has placeholders of these names.
        if gone or "WRONG PACKAGE" in str(error) or not (error or hasattr(package, "trace")):
            raise ImportError(
                f"{self.distribution} {version} is the package index's placeholder of that name, not AWS's package: "
                f"{sys.executable} -m pip uninstall -y {self.distribution}; {self._install(self.distribution)}"
            ) from error
        for name, compiled, here in self._different(2):
            raise RuntimeError(
                f"this graph was compiled by {name} {compiled} and this server has {here}: {self._install(name)}, or "
                "build the archive again with the server's"
            ) from error
        if error:
            raise ImportError(
                f"{self.distribution} {version} does not import beside torch {torch.__version__}: {_line(error)}"
            ) from error
        return package

    def _take_cores(self) -> None:
        """Set the number of cores, which the runtime reads when the package is imported. If it is unset, the runtime
        takes every core of the machine, and none is left for the next worker. Raises RuntimeError if it is too late."""
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
        """Name, compile-time version and installed version of each distribution whose first `numbers` of the version
        differ (all of them with None)."""
        pairs = [(name, self.compiled[name], self.here[name]) for name in self.compiled]
        return [
            (name, compiled, here)
            for name, compiled, here in pairs
            if compiled and here and _numbers(compiled, numbers) != _numbers(here, numbers)
        ]

    def _install(self, name: str, numbers: int | None = 2) -> str:
        """The command that installs a distribution in the version that compiled the graphs; with `numbers`, in any
        version with the same first numbers."""
        wanted = name
        if self.compiled[name]:
            release = ".".join(_numbers(self.compiled[name], numbers))
            wanted = f"'{name}=={release}.*'" if numbers else f"'{name}=={release}'"
        return f"{sys.executable} -m pip install --extra-index-url {REPOSITORY} {wanted}"

    def failed(self, file: Path, error: Exception) -> Exception:
        """The error that explains why loading a graph, or its first run, raised `error`."""
        if "PytorchStreamReader" in str(error):
            return damaged(file, _line(error).split(". ")[0])  # newer torch adds its guesses
        if not chips():
            return RuntimeError(
                f"there is no NeuronCore here (no /dev/neuron0), and this archive was compiled for {self.machines}: "
                "serve it on such a machine, with AWS's driver, and let a container have the device "
                "(--device=/dev/neuron0)"
            )
        # The messages of the runtime and of DataParallel.
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
                f"{_line(error)}; {self._install(name, None)}, or build the archive again with the server's"
            )
        return RuntimeError(f"{self.distribution} cannot run {file.name}: {_line(error)}")


def chips() -> list[str]:
    """The names of the Neuron driver's device files in /dev, one for each chip."""
    # Not glob: the driver has other files whose names begin the same way.
    return [name for name in os.listdir("/dev") if re.fullmatch(r"neuron\d+", name)]  # noqa: PTH208


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _numbers(version: str, count: int | None) -> list[str]:
    """The first `count` numbers of a version, or all with None, without its build (+cpu)."""
    return version.split("+")[0].split(".")[:count]


def _line(error: BaseException) -> str:
    """One line of an error's message: the first, or the last if TorchScript's traceback comes before the message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    return lines[-1 if "in the TorchScript interpreter" in lines[0] else 0][:300]
