"""The environments of the Neuron compilers: found, judged by what their imports say, and mended by the command told."""

from __future__ import annotations

import json
import shlex
import sys
import venv
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest

from pipeline import doctor, toolchain
from pipeline.errors import InputError
from pipeline.toolchain import CHIPS, Chip, known
from tests.conftest import Mar
from tests.neuron_stand_in import install, install_placeholders

AWS = "--extra-index-url https://pip.repos.neuron.amazonaws.com"
PLACES = {"neuron": "aws_neuron_venv_pytorch_inf1", "neuronx": "aws_neuronx_venv_pytorch_2_9"}
TORCH = metadata.version("torch").partition("+")[0]

pytestmark = pytest.mark.slow


@pytest.fixture(params=["neuron", "neuronx"])
def chip(request: pytest.FixtureRequest) -> Chip:
    return CHIPS[request.param]


def interpreter(folder: Path, packages: Path) -> Path:
    """An environment's bin/python that finds `packages` beside what ours has."""
    python = folder / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nPYTHONPATH={shlex.quote(str(packages))} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    return python


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    folder = tmp_path / "packages"
    folder.mkdir()
    return folder


@pytest.fixture
def python(tmp_path: Path, packages: Path) -> str:
    return str(interpreter(tmp_path / "environment", packages))


def judged(chip: Chip, python: str) -> tuple[str, str, str] | None:
    found = toolchain.inspect(chip, python, doctor.run)
    assert found is not None
    return toolchain.trouble(chip, python, found)


def test_a_whole_environment_has_nothing_wrong(chip: Chip, packages: Path, python: str) -> None:
    install(packages, torch_version=TORCH)
    assert judged(chip, python) is None
    found = toolchain.tools(chip, python)
    assert found["torch"].startswith(TORCH)
    assert found[chip.distribution].split(".")[:2] == TORCH.split(".")[:2]
    assert found[chip.compiler] == "9.9.9"


def test_a_placeholder_of_the_package_index_is_told_and_replaced(chip: Chip, packages: Path, python: str) -> None:
    install_placeholders(packages)
    wrong = judged(chip, python)
    assert wrong is not None
    assert (
        wrong[0]
        == f"{chip.distribution} 1.0 of {python} is the package index's placeholder of that name, not the real one."
    )
    assert wrong[2].startswith(
        f"{python} -m pip uninstall -y {chip.distribution}; {python} -m pip install {AWS} '{chip.packages[0]}'"
    )


def test_a_compiler_that_is_a_placeholder_is_told_too(chip: Chip, packages: Path, python: str) -> None:
    install_placeholders(packages)
    install(packages, torch_version=TORCH, only={chip.distribution})
    wrong = judged(chip, python)
    assert wrong is not None
    assert wrong[0].startswith(f"{chip.compiler} 1.0.post1 of {python} is the package index's placeholder")


def test_a_package_without_its_compiler_is_told_before_anything_is_fetched(
    chip: Chip, packages: Path, python: str
) -> None:
    install(packages, torch_version=TORCH, only={chip.distribution})
    wrong = judged(chip, python)
    assert wrong is not None
    with pytest.raises(InputError) as caught:
        toolchain.tools(chip, python)
    assert str(caught.value).splitlines() == list(wrong)
    assert wrong[0] == f"handler.hardware is {chip.name}, and {python} has no {chip.compiler}."
    assert wrong[2].startswith(f"{python} -m pip install {AWS} '{chip.packages[0]}'")


def test_a_package_for_another_torch_is_told_with_the_one_that_it_needs(
    chip: Chip, packages: Path, python: str
) -> None:
    install(packages, torch_version="1.13.1")
    wrong = judged(chip, python)
    assert wrong is not None
    assert wrong[0].startswith(f"{chip.distribution} 1.13.")
    assert wrong[0].endswith(f"of {python} was made for torch 1.13, and there is torch {metadata.version('torch')}.")
    assert wrong[2] == f"{python} -m pip install {AWS} 'torch==1.13.*' '{chip.distribution}==1.13.*'"


def test_what_the_worker_needs_beside_the_compiler_is_told_before_anything_is_compiled(
    chip: Chip, tmp_path: Path
) -> None:
    bare = tmp_path / "bare"
    venv.create(bare, with_pip=False, symlinks=True)
    install(bare / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages", torch_version=TORCH)
    python = bare / "bin" / "python"
    with pytest.raises(InputError) as caught:
        toolchain.tools(chip, str(python))
    what, _, fix = str(caught.value).splitlines()
    assert what == (
        f"{python} has {chip.distribution}, and no transformers and no safetensors and no tokenizers and no pyyaml."
    )
    assert fix == f"{python} -m pip install transformers safetensors tokenizers pyyaml"


def test_a_package_whose_import_fails_says_how(chip: Chip, packages: Path, python: str) -> None:
    install(packages, torch_version=TORCH)
    (packages / chip.package / "__init__.py").write_text("import libneuron_that_is_gone\n")
    wrong = judged(chip, python)
    assert wrong is not None
    assert "does not import: No module named 'libneuron_that_is_gone'" in wrong[0]
    assert wrong[2] == toolchain.install(chip, python)


def test_an_absent_package_is_told_with_an_environment_to_make(chip: Chip) -> None:
    with pytest.raises(InputError) as caught:
        toolchain.tools(chip, None)
    what, why, fix = str(caught.value).splitlines()
    assert what == f"handler.hardware is {chip.name}, and {sys.executable} has no {chip.distribution}."
    assert chip.machines in why
    assert fix.startswith(
        f"{chip.python} -m venv .venv-{chip.name} && .venv-{chip.name}/bin/python -m pip install {AWS}"
    )
    assert fix.endswith(f"; then hardware.python: .venv-{chip.name}/bin/python")


def test_the_environments_of_awss_images_are_found_and_offered(
    chip: Chip, packages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(packages, torch_version=TORCH)
    name = PLACES[chip.name]
    there = interpreter(tmp_path / "opt" / name, packages)
    (tmp_path / "opt" / f"{name}_without_a_python").mkdir()
    own, found = doctor.compilers(chip, root=tmp_path / "opt")
    assert own.found.startswith("not installed here")
    assert found.status == "ok"
    assert found.name == f"{chip.distribution} in {tmp_path / 'opt' / name}"
    assert found.found.endswith(f"to use it: hardware.python: {there}")
    real = toolchain.known
    monkeypatch.setattr(toolchain, "known", lambda chip: real(chip, tmp_path / "opt"))
    with pytest.raises(InputError, match=f"set hardware.python: {there}"):
        toolchain.tools(chip, None)


def test_the_newest_torch_comes_first_and_what_only_serves_vllm_is_none(tmp_path: Path, packages: Path) -> None:
    names = ["2_8", "2_10", "2_9_nxd_training", "2_9", "inference_vllm_0_24"]
    for name in names:
        interpreter(tmp_path / f"aws_neuronx_venv_pytorch_{name}", packages)
    found = [
        path.parents[1].name.removeprefix("aws_neuronx_venv_pytorch_") for path in known(CHIPS["neuronx"], tmp_path)
    ]
    assert found == ["2_10", "2_9", "2_9_nxd_training", "2_8"]


@pytest.mark.parametrize("put", [install_placeholders, lambda folder: install(folder, torch_version="1.13.1")])
def test_the_doctor_says_what_the_build_says(
    chip: Chip, packages: Path, tmp_path: Path, put: Callable[[Path], None]
) -> None:
    put(packages)
    interpreter(tmp_path / "opt" / PLACES[chip.name], packages)
    _, found = doctor.compilers(chip, root=tmp_path / "opt")
    assert found.status == "warn"
    assert "pip install" in found.fix
    assert AWS in found.fix


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("gone/python", "there is no such file"),
        ("false", "it ended with exit code 1"),
        ("true", "it does not answer as one"),
        ("text", "Exec format error"),
        ("folder", "a folder without bin/python"),
    ],
)
def test_an_interpreter_that_is_none_is_refused(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "text").write_text("no program")
    (tmp_path / "text").chmod(0o755)
    (tmp_path / "folder").mkdir()
    for program in ("false", "true"):
        (tmp_path / program).symlink_to(f"/bin/{program}")
    with pytest.raises(InputError) as caught:
        toolchain.tools(CHIPS["neuronx"], str(tmp_path / name))
    assert said in str(caught.value)
    assert "`mar doctor` lists" in str(caught.value)


def test_a_build_with_placeholders_ends_in_three_lines_and_leaves_nothing(
    fresh_mar: Mar, packages: Path, python: str
) -> None:
    install_placeholders(packages)
    install(packages, torch_version=TORCH, only={"neuronx-cc"})
    words = ("--task", "seq_classification", "--set", "handler.hardware=neuronx", "--set", f"hardware.python={python}")
    done = fresh_mar("build", *words, "--out", fresh_mar.out)
    assert done.returncode == 2, done.stderr
    what, why, fix = done.stderr[done.stderr.index("error:") :].strip().splitlines()
    assert "placeholder" in what
    assert "AWS's package repository" in why
    assert f"pip uninstall -y torch-neuronx; {python} -m pip install {AWS}" in fix
    assert not fresh_mar.out.exists()
    (archive,) = json.loads(fresh_mar("plan", *words, "--json").stdout)["archives"]
    assert [stage["stage"] for stage in archive["stages"] if stage["cached"]] == ["download"]
