"""Stand-ins for AWS's packages torch-neuron, torch-neuronx, neuron-cc and neuronx-cc, for tests without a chip.

They are ours, and named as such in every docstring. What is under packages/ has the documented signatures and enforces
what the chip and the real packages do (each module says what, and where the stand-in differs), on a pretended machine.
`install` puts them, as distributions with metadata, into a folder for PYTHONPATH or an environment's site-packages.

Environment variables, all read by the process that imports a stand-in:
  NEURON_STAND_IN_MACHINE          the pretended machine's folder (`machine`); unset: no chip. Read at the import.
  NEURON_STAND_IN_CALLS            a file that every call is appended to, a JSON object a line (`calls`).
  NEURON_STAND_IN_COMPILE_SECONDS  how long each compilation takes, in a child process.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

PACKAGES = {
    # distribution: import name
    "torch-neuron": "torch_neuron",
    "torch-neuronx": "torch_neuronx",
    "neuron-cc": "neuroncc",
    "neuronx-cc": "neuronxcc",
}
COMPILER_VERSION = "9.9.9"

_SOURCES = Path(__file__).parent / "packages"
_RUNTIME = "neuron_stand_in_runtime"
_WRONG = """\"\"\"A stand-in for what the package index has under this name.\"\"\"

raise ImportError("WRONG PACKAGE: install {name} from AWS's own package repository")
"""


def install(site_packages: Path, *, torch_version: str, only: Collection[str] = tuple(PACKAGES)) -> None:
    """Install the stand-ins for the distributions `only` as if made for a torch: their versions begin with its."""
    release = ".".join(torch_version.partition("+")[0].split(".")[:3])
    for distribution in only:
        package = PACKAGES[distribution]
        is_compiler = distribution.endswith("-cc")
        _copy(_SOURCES / package, site_packages / package)
        if not is_compiler:
            _copy(_SOURCES / _RUNTIME, site_packages / _RUNTIME)
        version = COMPILER_VERSION if is_compiler else f"{release}.{COMPILER_VERSION}"
        _metadata(site_packages, distribution, version, [package])


def is_alone_in(folder: Path) -> bool:
    """Whether the folder has the stand-ins, and no module that is not of them."""
    names = {file.name for file in folder.glob("*") if file.suffix != ".dist-info"}
    return _RUNTIME in names and names <= {_RUNTIME, *PACKAGES.values()}


def install_placeholders(site_packages: Path) -> None:
    """Install what the package index has under these names: import errors, and compilers that no module comes with."""
    _placeholder(site_packages, "torch-neuron", "1.0", {"torch_neuron": _WRONG, "neuron_cc": _WRONG})
    _placeholder(site_packages, "torch-neuronx", "1.0", {"torch_neuronx": _WRONG})
    for compiler in ("neuron-cc", "neuronx-cc"):
        # The folder that its wheel has cannot be imported by this name.
        _placeholder(site_packages, compiler, "1.0.post1", {compiler: _WRONG})


def machine(folder: Path, *, cores: int = 2, chip: str = "inf2") -> Path:
    """Make a pretended machine's folder; chip: inf1, inf2 or trn1."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "machine.json").write_text(json.dumps({"cores": cores, "chip": chip}), encoding="utf-8")
    return folder


def environment(
    site_packages: Path | None = None,
    machine: Path | None = None,
    calls: Path | None = None,
    compile_seconds: float | None = None,
) -> dict[str, str]:
    """The environment variables for a process that is to use the stand-ins there (None: in its own environment)."""
    return {
        **({"PYTHONPATH": str(site_packages)} if site_packages else {}),
        **({"NEURON_STAND_IN_MACHINE": str(machine)} if machine else {}),
        **({"NEURON_STAND_IN_CALLS": str(calls)} if calls else {}),
        **({"NEURON_STAND_IN_COMPILE_SECONDS": str(compile_seconds)} if compile_seconds else {}),
    }


def calls(file: Path) -> list[dict[str, Any]]:
    """The calls that were recorded, in their order, as `packages/neuron_stand_in_runtime/calls.py` describes them.

    The functions are torch_neuronx.trace, .dynamic_batch, .async_load, .lazy_load and .DataParallel, torch_neuron.trace
    and .DataParallel; "torch_neuronx: load" and "torch_neuronx: run" (torch_neuron too) are of graphs.
    """
    if not file.exists():
        return []
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def _placeholder(site_packages: Path, distribution: str, version: str, packages: dict[str, str]) -> None:
    for package, code in packages.items():
        (site_packages / package).mkdir(parents=True, exist_ok=True)
        (site_packages / package / "__init__.py").write_text(code.format(name=distribution), encoding="utf-8")
    _metadata(site_packages, distribution, version, list(packages))


def _copy(source: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for file in source.glob("*.py"):
        _write(target / file.name, file.read_bytes())


def _metadata(site_packages: Path, distribution: str, version: str, packages: list[str]) -> None:
    folder = site_packages / f"{distribution.replace('-', '_')}-{version}.dist-info"
    folder.mkdir(exist_ok=True)
    lines = (
        "Metadata-Version: 2.1",
        f"Name: {distribution}",
        f"Version: {version}",
        "Summary: A stand-in of the tests",
    )
    _write(folder / "METADATA", "".join(f"{line}\n" for line in lines).encode())
    _write(folder / "INSTALLER", b"tests.support.stand_ins.neuron\n")
    modules = sorted(file for name in packages for file in (site_packages / name).glob("*.py"))
    files = [file.relative_to(site_packages) for file in modules]
    records = [*files, *(folder.relative_to(site_packages) / name for name in ("METADATA", "INSTALLER", "RECORD"))]
    _write(folder / "RECORD", "".join(f"{name},,\n" for name in records).encode())


def _write(file: Path, data: bytes) -> None:
    """Write a file, unless it has these bytes: another process may be reading it, and the folder may be read-only."""
    if not file.exists() or file.read_bytes() != data:
        file.write_bytes(data)
