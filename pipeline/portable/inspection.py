"""Inspects the Neuron packages of this interpreter, and the Neuron devices of this machine."""

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
    """The Neuron driver's device files, one for each chip."""
    # Not glob: the driver has other files whose names begin the same way.
    names = os.listdir("/dev")  # noqa: PTH208
    return sorted(f"/dev/{name}" for name in names if name[:6] == "neuron" and name[6:].isdigit())


def version(distribution: str) -> str | None:
    """The installed version of a distribution."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def inspect(job: Job, report: Report) -> dict[str, Any]:
    """The state of the packages of the job's `chip`, a row of `host.chips`, in this interpreter: {"python", "torch",
    "transformers": versions, "package" and "compiler": {"version", "state": "ok", "absent", "placeholder" or
    "broken", "error": the message of a failed import}}.

    The public package index has placeholders of these names, so metadata are not enough: the packages are imported.
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
    package: dict[str, Any] = {"version": version(distribution), "state": "ok", "error": ""}
    try:
        imported = importlib.import_module(module)
        if function and not callable(getattr(imported, function, None)):
            package["state"] = "placeholder"
    except ModuleNotFoundError as error:
        # The compiler's placeholder is a wheel without the module.
        missing = error.name == module
        package["state"] = ("placeholder" if package["version"] else "absent") if missing else "broken"
        package["error"] = str(error)
    except Exception as error:  # importing a broken package can raise anything
        package["state"] = "placeholder" if "WRONG PACKAGE" in str(error) else "broken"
        package["error"] = message_of(error)
    return package


def whole(inspection: Mapping[str, Any]) -> bool:
    """Whether the packages that `inspect` reports work. A Neuron package's version begins with its torch's."""
    package, compiler = inspection["package"], inspection["compiler"]
    if not package["state"] == compiler["state"] == "ok" or None in (inspection["torch"], package["version"]):
        return False
    return bool(inspection["torch"].split(".")[:2] == package["version"].split(".")[:2])
