"""A second real environment for tests: an older transformers, as the environments of the Neuron compilers have, and the
stand-ins for these compilers. torch, which is large, is linked in from the main environment, and nothing else of it but
what torch needs.

python -m tests.support.toolchain FOLDER  makes it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from functools import lru_cache
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.support.stand_ins.neuron import install

FOLDER = Path(sys.prefix) / "toolchain"
"""Where the Makefile has it made: $(VENV)/toolchain."""

_OLD = ["transformers==4.25.1", "tokenizers==0.13.3", "huggingface-hub==0.16.4", "numpy==1.26.4"]
# The oldest whose tokenizers has wheels for Python 3.12 and later.
_LESS_OLD = ["transformers==4.48.3", "tokenizers==0.21.4", "huggingface-hub==0.36.2", "numpy>=2"]
_BESIDE = ["safetensors", "pyyaml", "regex", "filelock", "packaging", "tqdm"]
_REQUESTS = ["requests", "certifi", "charset-normalizer", "idna", "urllib3"]


def make(folder: Path) -> None:
    """Make the environment, anew if it is there."""
    venv.create(folder, clear=True, with_pip=False, symlinks=True)
    site_packages = _site_packages(folder)
    packages = [*(_OLD if sys.version_info < (3, 12) else _LESS_OLD), *_BESIDE, *_REQUESTS]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    # Without pip of its own, which takes seconds to install.
    options = ["--target", str(site_packages), "--no-deps", "--only-binary", ":all:"]
    subprocess.run([*pip, *options, *packages], check=True)
    _link("torch", site_packages)
    install(site_packages, torch_version=metadata.version("torch"))


def _site_packages(folder: Path) -> Path:
    return folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"


def _link(name: str, site_packages: Path) -> None:
    """Link a distribution of this environment, and what it needs, into another, where that has it not."""
    if any(metadata.distributions(name=name, path=[str(site_packages)])):
        return
    found = metadata.distribution(name)
    tops = {file.parts[0] for file in found.files or [] if file.parts[0] not in ("..", "__pycache__")}
    for top in tops:
        (site_packages / top).symlink_to(Path(str(found.locate_file(top))))
    for line in found.requires or []:
        needed = Requirement(line)
        # torch needs setuptools to compile only.
        if needed.name != "setuptools" and (needed.marker is None or needed.marker.evaluate({"extra": ""})):
            _link(needed.name, site_packages)


@lru_cache
def _refreshed(python: str) -> Path:
    """An interpreter, with the stand-ins as they are now."""
    code = "import sysconfig, torch; print(sysconfig.get_paths()['purelib'], torch.__version__, sep='\\n')"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    folder, torch_version = done.stdout.splitlines()
    install(Path(folder), torch_version=torch_version)
    return Path(python)


def interpreter() -> Path:
    """The environment's interpreter, or that which the environment variable TOOLCHAIN names: one of an older Python and
    torch, to try them too. Skips the test if the environment was not made."""
    if given := os.environ.get("TOOLCHAIN"):
        return _refreshed(given)
    if not (FOLDER / ".ready").exists():
        pytest.skip(f"the second environment was not made: make {FOLDER}/.ready")
    return _refreshed(str(FOLDER / "bin" / "python"))


if __name__ == "__main__":
    make(Path(sys.argv[1]))
