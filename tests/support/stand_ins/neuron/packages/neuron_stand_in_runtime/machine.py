"""The pretended machine: a folder, named by NEURON_STAND_IN_MACHINE, with machine.json, {"cores": 2, "chip": "inf2"},
and a lock file a core. A process has a core as long as it holds the core's lock, so that a killed one frees it."""

from __future__ import annotations

import fcntl
import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

UNINITIALIZED = (
    "The PyTorch Neuron Runtime could not be initialized. Neuron Driver issues are logged\n"
    "to your system logs. See the Neuron Runtime's troubleshooting guide for help on this\n"
    "topic: https://awsdocs-neuron.readthedocs-hosted.com/en/latest/"
)
"""The runtime's words (aws-neuron-sdk#718), whatever the cause."""

GENERATIONS = {"inf1": 1, "inf2": 2, "trn1": 2, "trn1n": 2, "trn2": 3}
"""Of the NeuronCores in each family of machines: a graph is compiled for one generation."""


def neuron_variables() -> dict[str, str]:
    """The environment variables that the runtime and the compilers read."""
    return {
        name: value
        for name, value in sorted(os.environ.items())
        if name.startswith("NEURON_") and not name.startswith("NEURON_STAND_IN_")
    }


AT_IMPORT = neuron_variables()
"""Their values as the package was imported. Setting one afterwards changes nothing."""

_FOLDER = os.environ.get("NEURON_STAND_IN_MACHINE")
_held: list[Any] = []
_one_at_a_time = threading.Lock()


def _facts() -> dict[str, Any]:
    if not _FOLDER:
        return {"cores": 0, "chip": None}
    return dict(json.loads(Path(_FOLDER, "machine.json").read_text(encoding="utf-8")))


def generation() -> int | None:
    """Of this machine's NeuronCores; None: it has none."""
    return GENERATIONS.get(_facts()["chip"])


def family() -> str | None:
    """This machine's, as `--target` names it; None: it has no chip."""
    chip = _facts()["chip"]
    return None if chip is None else str(chip)


def take(wanted: int) -> int:
    """Take this process's NeuronCores, of the generation `wanted`, if it has not yet; how many it has.

    Raises RuntimeError if there are none, too few are free, or one that NEURON_RT_VISIBLE_CORES names is taken.
    """
    with _one_at_a_time:
        if generation() != wanted:
            _log("Unable to determine Neuron Driver version. Please check aws-neuronx-dkms package is installed.")
            raise RuntimeError(UNINITIALIZED)
        if not _held:
            _held.extend(_locked())
        return len(_held)


def _locked() -> list[Any]:
    cores = int(_facts()["cores"])
    visible = AT_IMPORT.get("NEURON_RT_VISIBLE_CORES")
    # It takes precedence over the number.
    candidates = _numbers(visible) if visible else list(range(cores))
    wanted = len(candidates) if visible else int(AT_IMPORT.get("NEURON_RT_NUM_CORES") or 0) or cores
    locks: list[Any] = []
    for core in candidates:
        if core >= cores or len(locks) == wanted:
            break
        lock = Path(str(_FOLDER), f"core-{core}.lock").open("w")  # noqa: SIM115
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
        else:
            locks.append(lock)
    if len(locks) < wanted:
        for lock in locks:
            lock.close()
        _log(f"NeuronCore(s) not available - Requested:{visible or wanted} Available:{len(locks)}")
        raise RuntimeError(UNINITIALIZED)
    return locks


def _numbers(visible: str) -> list[int]:
    """The cores that a list of numbers and inclusive ranges names, as in "0-1"."""
    numbers: list[int] = []
    for part in visible.split(","):
        first, _, last = part.partition("-")
        numbers += range(int(first), int(last or first) + 1)
    return numbers


def _log(line: str) -> None:
    print(f"{os.getpid()}:{os.getpid()} ERROR NRT:nrt_allocate_neuron_cores {line}", file=sys.stderr)
