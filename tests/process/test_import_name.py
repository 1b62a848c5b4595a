"""What an installed wheel claims in site-packages, beside a user's modules of common names."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
from hatchling.builders.wheel import WheelBuilder

from tests.support import ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    (made,) = WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])
    return Path(made)


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of an environment that the wheel was installed into; its other packages are this environment's."""
    folder = tmp_path_factory.mktemp("installed")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    install = ["-m", "pip", "--python", folder, "install", "--quiet", "--no-deps", "--no-index", wheel]
    subprocess.run([sys.executable, *map(str, install)], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    # Lines of .pth files add folders whose own .pth files are not read, so the checkout stays out of it.
    (packages / "shared.pth").write_text(f"{sysconfig.get_path('purelib')}\n", encoding="utf-8")
    return folder / "bin"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A user's project with modules of common names; each writes a file when it is imported."""
    folder = tmp_path / "project"
    for name in ("pipeline.py", "handlers/__init__.py", "configs/__init__.py", "transformers.py", "torch.py"):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        mark = tmp_path / f"imported-{Path(name).parts[0]}"
        file.write_text(f"import pathlib\npathlib.Path({str(mark)!r}).touch()\n", encoding="utf-8")
    return folder


def run(*words: Any, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_HUB_OFFLINE": "1", "MAR_CACHE": str(cwd / "cache"), **env}
    return subprocess.run(
        [str(word) for word in words], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


def test_a_wheel_has_one_package_and_no_training(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        names = archive.namelist()
    (own,) = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert own == "mar_pipeline"
    for name in ("handlers/base.py", "handlers/text/windows.py", "configs/seq_classification.yaml", "py.typed"):
        assert f"mar_pipeline/{name}" in names
    assert not [name for name in names if "/starters/training/" in name]


@pytest.mark.slow
@pytest.mark.parametrize("where", [pytest.param("working folder", marks=pytest.mark.long), "PYTHONPATH"])
def test_a_users_modules_are_not_taken_for_ours(installed: Path, project: Path, where: str) -> None:
    mar, env = installed / "mar", {"PYTHONPATH": str(project)} if where == "PYTHONPATH" else {}
    built = run(mar, "build", "--task", "seq_classification", cwd=project, **env)
    assert built.returncode == 0, built.stderr
    answer = run(mar, "run", "build/model-store/seq_classification.mar", "--input", "Lovely.", cwd=project, **env)
    assert answer.returncode == 0, answer.stderr
    assert "positive" in answer.stdout
    assert not list(project.parent.glob("imported-*"))


@pytest.mark.parametrize("name", ["pipeline", "handlers", "configs", "src"])
def test_our_modules_are_not_taken_for_a_users(installed: Path, project: Path, tmp_path: Path, name: str) -> None:
    python = installed / "python"
    absent = run(python, "-c", f"import {name}", cwd=tmp_path)
    assert f"No module named '{name}'" in absent.stderr
    if name != "src":
        own = run(python, "-c", f"import {name}; print({name}.__file__)", cwd=tmp_path, PYTHONPATH=str(project))
        assert own.stdout.startswith(str(project)), own.stderr


@pytest.mark.parametrize("name", ["pipeline", "handlers", "configs", "tests"])
def test_an_editable_install_claims_no_more_than_a_wheel(tmp_path: Path, name: str) -> None:
    done = run(sys.executable, "-c", f"import mar_pipeline; import {name}", cwd=tmp_path)
    assert f"No module named '{name}'" in done.stderr
