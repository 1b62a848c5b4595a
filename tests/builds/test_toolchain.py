"""The environments of the Neuron compilers: found, judged by what their imports say, and mended by the command told."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest

from mar_pipeline.errors import InputError
from mar_pipeline.host import doctor, interpreters, toolchain
from mar_pipeline.host.chips import CHIPS, Chip
from mar_pipeline.host.toolchain import known
from tests.support.mar import Mar
from tests.support.stand_ins.neuron import install, install_placeholders

AWS = "--extra-index-url https://pip.repos.neuron.amazonaws.com"
PLACES = {"neuron": "aws_neuron_venv_pytorch_inf1", "neuronx": "aws_neuronx_venv_pytorch_2_9"}
TORCH = metadata.version("torch").partition("+")[0]
RELEASE = f"{sys.version_info.major}.{sys.version_info.minor}"

pytestmark = pytest.mark.slow


@pytest.fixture(params=[pytest.param("neuron", marks=pytest.mark.long), "neuronx"])
def chip(request: pytest.FixtureRequest) -> Chip:
    return CHIPS[request.param]


def interpreter(folder: Path, packages: Path) -> Path:
    """An environment's bin/python that finds `packages` before what ours has."""
    own = Path(sys.executable).resolve()
    site_packages = folder / "lib" / f"python{RELEASE}" / "site-packages"
    site_packages.mkdir(parents=True)
    (folder / "pyvenv.cfg").write_text(f"home = {own.parent}\nversion = {RELEASE}.0\n")
    (site_packages / "beside.pth").write_text(f"{packages}\n{sysconfig.get_paths()['purelib']}\n")
    python = folder / "bin" / "python"
    python.parent.mkdir()
    python.symlink_to(own)
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
    assert wrong[0].endswith(
        f"of {python} was built for torch 1.13, and torch {metadata.version('torch')} is installed."
    )
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
    assert what == (f"{python} has {chip.distribution}, but not transformers, safetensors, tokenizers, pyyaml.")
    assert fix == f"{python} -m pip install transformers safetensors tokenizers pyyaml"


def test_a_package_whose_import_fails_says_how(chip: Chip, packages: Path, python: str) -> None:
    install(packages, torch_version=TORCH)
    (packages / chip.package / "__init__.py").write_text("import libneuron_that_is_gone\n")
    wrong = judged(chip, python)
    assert wrong is not None
    assert "cannot be imported: No module named 'libneuron_that_is_gone'" in wrong[0]
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
        ("bin/true", "there is no "),
        ("bin/text", "there is no "),
        ("bin/not-a-program", "it cannot be run"),
        ("folder", "a folder without bin/python"),
    ],
)
def test_an_interpreter_that_is_none_is_refused(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "bin").mkdir()
    for program in ("text", "not-a-program"):
        (tmp_path / "bin" / program).write_text("no program")
    (tmp_path / "bin/text").chmod(0o755)
    (tmp_path / "folder").mkdir()
    (tmp_path / "bin/true").symlink_to(copy_of_true(tmp_path))
    with pytest.raises(InputError) as caught:
        toolchain.tools(CHIPS["neuronx"], str(tmp_path / name))
    assert said in str(caught.value)
    assert "`mar doctor` lists" in str(caught.value)


def copy_of_true(folder: Path) -> Path:
    """A program that is no Python, and in no folder with one."""
    there = folder / "elsewhere" / "bin" / "true"
    there.parent.mkdir(parents=True)
    shutil.copy("/bin/true", there)
    return there


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("exit 3", "it ended with exit code 3"),
        ("echo 'no such option' >&2; exit 2", "no such option"),
        ("echo hello", "it answers 'hello'"),
        ("echo 2.7", "it answers '2.7'"),
        (None, "Exec format error"),
    ],
)
def test_a_build_refuses_an_interpreter_that_is_not_what_its_files_say(
    tmp_path: Path, packages: Path, program: str | None, said: str
) -> None:
    python = interpreter(tmp_path / "environment", packages)
    python.unlink()
    python.write_text(f"#!/bin/sh\n{program}\n" if program else "no program")
    python.chmod(0o755)
    assert toolchain.versions(str(python), ["torch"])["torch"].startswith(TORCH)
    with pytest.raises(InputError) as caught:
        toolchain.started(str(python))
    assert said in str(caught.value)


def test_a_plan_and_what_fails_before_a_build_start_no_program_that_a_config_names(
    fresh_mar: Mar, packages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(packages, torch_version=TORCH)
    python, ran = interpreter(tmp_path / "environment", packages), tmp_path / "ran"
    python.unlink()
    paths = os.pathsep.join([str(packages), sysconfig.get_paths()["purelib"]])
    python.write_text(f'#!/bin/sh\nenv > {ran}\nPYTHONPATH={paths} exec {Path(sys.executable).resolve()} "$@"\n')
    python.chmod(0o755)
    words = ("--task", "seq_classification", "--set", "handler.hardware=neuronx", "--set", f"hardware.python={python}")
    assert not fresh_mar.plan(*words)["serialize"]["cached"]
    assert not ran.exists()
    (tmp_path / "environment/lib").rename(tmp_path / "environment/gone")
    for command in ("plan", "build"):
        assert fresh_mar(command, *words).returncode == 2
        assert not ran.exists()
    (tmp_path / "environment/gone").rename(tmp_path / "environment/lib")

    # A build runs it, with nothing of the builder's.
    for name in ("HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "SOMEBODYS_SETTING"):
        monkeypatch.setenv(name, "planted")
    assert toolchain.started(str(python)) == str(python)
    assert "planted" not in ran.read_text()


def as_it_says_itself(python: str, names: tuple[str, ...]) -> dict[str, str]:
    """The versions that an interpreter tells when it is run."""
    code = (
        "import json, sys\nfrom importlib import metadata\nfound = {'python': '%d.%d' % sys.version_info[:2]}\n"
        f"for name in {names!r}:\n"
        "    try: found[name] = metadata.version(name)\n"
        "    except metadata.PackageNotFoundError: found[name] = 'absent'\n"
        "print(json.dumps(found))"
    )
    done = subprocess.run([python, "-c", code], cwd="/", capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


NAMES = ("torch", "transformers", "torch-neuronx", "neuronx-cc", "pip", "none-of-that-name")


@pytest.mark.parametrize("system_packages", [False, True])
def test_versions_read_off_the_files_are_those_that_the_interpreter_tells(
    tmp_path: Path, packages: Path, system_packages: bool
) -> None:
    install(packages, torch_version=TORCH)
    made = tmp_path / "made"
    venv.EnvBuilder(symlinks=True, system_site_packages=system_packages).create(made)
    site_packages = made / "lib" / f"python{RELEASE}" / "site-packages"
    (site_packages / "a.pth").write_text(f"# more\nimport sys; sys.path.append('/nowhere')\n{packages}\n/not/there\n")
    base = str(Path(sys.executable).resolve())
    for python in (str(made / "bin/python"), str(interpreter(tmp_path / "other", packages)), base, sys.executable):
        assert toolchain.versions(python, NAMES) == as_it_says_itself(python, NAMES)


def test_what_pythonpath_names_goes_before_an_environments_own(
    tmp_path: Path, packages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = str(interpreter(tmp_path / "environment", packages))
    other = tmp_path / "other"
    other.mkdir()
    install(other, torch_version="1.2.3", only={"torch-neuronx"})
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(other), str(tmp_path)]))
    interpreters.read.cache_clear()
    assert toolchain.versions(python, ["torch-neuronx"])["torch-neuronx"].startswith("1.2.3")
    assert toolchain.versions(python, NAMES) == as_it_says_itself(python, NAMES)


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
