"""What an interpreter has of the Neuron packages, and a machine of their chips."""

from __future__ import annotations

import importlib
import os
import platform
from importlib import metadata
from typing import TYPE_CHECKING, Any

from .protocol import message_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .protocol import Job, Report


def device_files() -> list[str]:
    """The Neuron driver's files, one a chip."""
    # Not a pattern of names: other files of the driver's are of no chip.
    names = os.listdir("/dev")  # noqa: PTH208
    return sorted(f"/dev/{name}" for name in names if name[:6] == "neuron" and name[6:].isdigit())


def version(distribution: str) -> str | None:
    """The installed version of a distribution."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def inspect(job: Job, report: Report) -> dict[str, Any]:
    """What this interpreter has of the packages of the job's `chip`, a row of `host.chips`: {"python", "torch",
    "transformers": versions, "package" and "compiler": {"version", "state": "ok", "absent", "placeholder" or
    "broken", "error": what its import says}}.

    The packages of these names on the package index are placeholders, so the metadata prove nothing: it is imported.
    """
    chip = job["chip"]
    report(f"importing {chip['package']}", 0, None)
    return {
        "python": platform.python_version(),
        "torch": version("torch"),
        "transformers": version("transformers"),
        "package": _inspected(chip["distribution"], chip["package"], "trace"),
        "compiler": _inspected(chip["compiler"], chip["compiler_module"], ""),
    }


def _inspected(distribution: str, module: str, function: str) -> dict[str, Any]:
    found: dict[str, Any] = {"version": version(distribution), "state": "ok", "error": ""}
    try:
        imported = importlib.import_module(module)
        if function and not callable(getattr(imported, function, None)):
            found["state"] = "placeholder"
    except ModuleNotFoundError as error:
        # A wheel without its module is the compiler's placeholder.
        missing = error.name == module
        found["state"] = ("placeholder" if found["version"] else "absent") if missing else "broken"
        found["error"] = str(error)
    except Exception as error:  # what a package's import raises can be anything
        found["state"] = "placeholder" if "WRONG PACKAGE" in str(error) else "broken"
        found["error"] = message_of(error)
    return found


def whole(inspection: Mapping[str, Any]) -> bool:
    """Whether nothing is wrong with what `inspect` found. A Neuron package's version begins with its torch's."""
    package, compiler = inspection["package"], inspection["compiler"]
    if not package["state"] == compiler["state"] == "ok" or None in (inspection["torch"], package["version"]):
        return False
    return bool(inspection["torch"].split(".")[:2] == package["version"].split(".")[:2])
