"""The whole line for AWS Inferentia, on stand-ins for its packages: build, verify, archive, TorchServe.

They enforce what the hardware does (tests/support/stand_ins/neuron), and are not it: docs/how-to/inferentia.md says
what was run where.
"""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from mar_pipeline.archive.reader import Archive
from mar_pipeline.audit.check import check
from mar_pipeline.host.toolchain import versions
from mar_pipeline.serving.server import Server
from tests.support import reference_example, tiny, toolchain
from tests.support.mar import Mar
from tests.support.stand_ins import neuron as neuron_stand_in
from tests.support.stand_ins.hub import running

pytestmark = pytest.mark.slow

TORCH = metadata.version("torch").partition("+")[0]
TASKS = ("seq_classification", "token_classification", "question_answering")
FAMILIES = ("bert", "roberta", "distilbert", "gpt2")
CHIPS = {"neuron": "inf1", "neuronx": "inf2"}


FOREVER = f"{100_000 + os.getpid()}.0"
"""Seconds that no compiler takes here, and that tell this process's from those of other runs on the machine."""


class Host(NamedTuple):
    """A builder's machine: the command line in an environment with the stand-ins, and what they were called with."""

    mar: Mar
    calls: Path

    def called(self, function: str) -> list[dict[str, Any]]:
        return [call for call in neuron_stand_in.calls(self.calls) if call["function"].endswith(f".{function}")]

    def config(self, name: str, model: Path, task: str, chip: str, **more: Any) -> Path:
        """A config of batch 4 and two lengths; `more` are further sections and keys."""
        handler = {"model_name": str(model), "task": task, "hardware": chip, "batch_size": 4, "max_length": [16, 32]}
        text = {**more, "handler": {**handler, **more.get("handler", {})}, "archive": {"name": name}}
        path = self.mar.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(text))
        return path


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packages")
    neuron_stand_in.install(folder, torch_version=TORCH)
    return folder


def host(folder: Path, packages: Path | None, chip: str | None, cores: int = 2) -> Host:
    """A machine with a chip, or without one; without `packages`, they are where a config's hardware.python is."""
    mar, calls = Mar(folder), folder / "calls.jsonl"
    machine = neuron_stand_in.machine(folder / "machine", cores=cores, chip=chip) if chip else None
    mar.env |= neuron_stand_in.environment(packages, machine, calls)
    return Host(mar, calls)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    root = tmp_path_factory.mktemp("models")
    return {(f, t): tiny.save(root / f"{f}-{t}", f, t) for f in FAMILIES for t in TASKS}


@pytest.fixture(scope="session")
def hosts(tmp_path_factory: pytest.TempPathFactory, packages: Path) -> dict[str, Host]:
    """A machine with each chip, whose cache the tests may share."""
    return {name: host(tmp_path_factory.mktemp(name), packages, chip, 4) for name, chip in CHIPS.items()}


# A build host with a chip, told so: whether there is one is asked before the stand-ins can pretend its device files.
WITH_CHIP = {"neuron": {}, "neuronx": {"hardware": {"cpu_backend": False}}}


Kind = tuple[str, str, str]

# Each chip with each family, and with each task. The other combinations are of the long tier.
PAIRS = [
    (chip, family, TASKS[(number + shift) % len(TASKS)])
    for shift, chip in enumerate(CHIPS)
    for number, family in enumerate(FAMILIES)
]
KINDS = [
    pytest.param(*kind, marks=() if kind in PAIRS else pytest.mark.long)
    for kind in itertools.product(CHIPS, FAMILIES, TASKS)
]


class Built(dict[Kind, dict[str, Any]]):
    """The archive of each kind, built when it is first asked for."""

    def __init__(self, build: Callable[[Kind], dict[str, Any]]) -> None:
        self._build = build

    def __missing__(self, kind: Kind) -> dict[str, Any]:
        self[kind] = self._build(kind)
        return self[kind]


@pytest.fixture(scope="session")
def built(hosts: dict[str, Host], models: dict[tuple[str, str], Path]) -> Built:
    """A task of a family for a chip."""

    def build(kind: Kind) -> dict[str, Any]:
        chip, family, task = kind
        one = hosts[chip]
        path = one.config(f"{family}-{task}", models[family, task], task, chip, **WITH_CHIP[chip])
        return one.mar.build(path)[0]

    return Built(build)


@pytest.mark.parametrize(("chip", "family", "task"), KINDS)
def test_every_encoder_task_builds_and_answers_like_the_original(
    hosts: dict[str, Host], built: Built, chip: str, family: str, task: str
) -> None:
    archive = built[chip, family, task]
    assert archive["verified"] is True
    assert "unverified" not in archive
    report = json.loads((hosts[chip].mar.out / "reports" / f"{family}-{task}.json").read_text())
    assert report["largest_difference"] <= 1e-3
    held = Archive(Path(archive["path"]))
    assert check(held.path)["findings"] == []
    names = {member.path for member in held.members()}
    assert {"model-16.pt", "model-32.pt", "graph.json", "tokenizer.json", "handlers/runtimes/neuron.py"} <= names
    assert not {"model.safetensors", "model.pt"} & names
    facts = held.json("graph.json")
    assert (facts["device"], facts["batch"], facts["lengths"], facts["tried"]) == (chip, 4, [16, 32], True)
    settings = yaml.safe_load(held.read("model-config.yaml"))
    assert (settings["batchSize"], settings["deviceType"]) == (4, "cpu")
    assert (settings["handler"]["max_length"], settings["handler"]["hardware"]) == (32, chip)
    assert "unverified" not in held.json("provenance.json")


def test_the_compilers_are_called_as_documented_and_one_core_is_asked_for_first(
    hosts: dict[str, Host], built: Built
) -> None:
    assert all(built[kind] for kind in PAIRS)
    traces = {chip: hosts[chip].called("trace") for chip in CHIPS}
    for chip, calls in traces.items():
        assert len(calls) == 2 * len([kind for kind in built if kind[0] == chip])
        for call in calls:
            assert {tuple(shape) for shape in call["shapes"]} in ({(4, 16)}, {(4, 32)})
            assert call["environment"]["NEURON_RT_NUM_CORES"] == "1"
            assert "compiler" in call["keywords"]["compiler_workdir"]
        first = calls[0]["keywords"]
        if chip == "neuron":
            assert first["compiler_args"] == ["--fast-math", "none"]
            assert first["fallback"] is False
        else:
            assert first["compiler_args"] == ["--auto-cast", "none", "--target", "inf2"]


def test_answers_of_partial_batches_are_the_originals_in_a_real_torchserve(
    hosts: dict[str, Host], models: dict[tuple[str, str], Path]
) -> None:
    one = hosts["neuronx"]
    keys = {"minWorkers": 2, "maxWorkers": 2, "maxBatchDelay": 300, **WITH_CHIP["neuronx"]}
    model = models["bert", "seq_classification"]
    (archive,) = one.mar.build(one.config("served", model, "seq_classification", "neuronx", **keys), process=True)
    report = json.loads((one.mar.out / "reports" / "served.json").read_text())
    wanted = {json.dumps(sample["request"]): sample["expected"] for sample in report["samples"]}
    requests = [sample["request"] for sample in report["samples"]]
    assert len(requests) >= 4
    machine = neuron_stand_in.machine(one.mar.folder / "served", cores=2, chip="inf2")
    env = {**one.mar.env, **neuron_stand_in.environment(None, machine)}
    with Server([Path(archive["path"])], env=env) as server:
        server.wait_ready(["served"])

        def ask(request: Any) -> float:
            reply = server.client.predict("served", request)
            assert reply.status_code == 200, reply.text
            answer, expected = reply.json(), wanted[json.dumps(request)]
            assert answer["label"] == expected["label"]
            return abs(answer["score"] - expected["score"])

        for count in (1, 2, 3, 4):
            with ThreadPoolExecutor(count) as pool:
                assert max(pool.map(ask, requests[:count])) <= 1e-3
        with ThreadPoolExecutor(12) as pool:
            assert max(pool.map(ask, requests * 6)) <= 1e-3
        # A core belongs to one process: a third worker finds none, and says so; the two go on.
        server.client.manage("PUT", "/models/served?min_worker=3")
        until = time.monotonic() + 60
        while not (found := server.logs.deaths("served")) and time.monotonic() < until:
            time.sleep(0.2)
        assert found
        assert "NeuronCore" in str(server.logs.death("served", "died while it loaded"))
        assert ask(requests[0]) <= 1e-3


@pytest.mark.long
def test_a_host_without_a_chip_compiles_by_the_cpu_backend_and_the_archive_is_unverified(
    tmp_path: Path, packages: Path, models: dict[tuple[str, str], Path]
) -> None:
    one = host(tmp_path, packages, None)
    path = one.config("bert", models["bert", "seq_classification"], "seq_classification", "neuronx")
    done = one.mar("build", path, "--out", one.mar.out)
    assert done.returncode == 3, done.stderr
    what, why, fix = done.stderr[done.stderr.index("error:") :].strip().splitlines()
    assert what == "error: bert cannot be verified here: no NeuronCore."
    assert why.strip() == "What torch_neuronx compiles runs on Inf2 or Trn1 alone."
    assert "--allow-unverified" in fix
    assert not (one.mar.out / "model-store").exists()
    (call, *_) = one.called("trace")
    assert call["keywords"]["cpu_backend"] is True
    assert call["environment"]["NEURON_PLATFORM_TARGET_OVERRIDE"] == "inf2"

    done = one.mar("build", path, "--out", one.mar.out, "--allow-unverified")
    assert done.returncode == 0, done.stderr
    assert "unverified: no NeuronCore" in done.stdout
    assert "answers like the original" not in done.stdout
    assert len(one.called("trace")) == 2  # what was compiled is cached
    (archive,) = one.mar.build(path, "--allow-unverified")
    assert (archive["verified"], archive["unverified"]) == (False, "no NeuronCore")
    assert all(stage["cached"] for stage in archive["stages"])
    held = Archive(Path(archive["path"]))
    assert held.json("provenance.json")["unverified"] == "no NeuronCore"
    assert "unverified: no NeuronCore" in one.mar("inspect", archive["path"]).stdout
    assert one.mar("check", archive["path"]).returncode == 0
    # Without the flag, it is still refused: what was accepted once is not what was verified.
    assert one.mar("build", path, "--out", one.mar.out).returncode == 3

    # On the chip, TorchServe's answers are compared with the original's, which the report has.
    machine = neuron_stand_in.machine(tmp_path / "chip", cores=2, chip="inf2")
    chip = neuron_stand_in.environment(None, machine)
    done = one.mar("smoke", "--out", one.mar.out, **chip)
    assert done.returncode == 0, done.stderr
    assert "like the original model" in done.stdout
    # Without the report nothing has ever compared it with the original.
    alone = tmp_path / "alone" / "bert.mar"
    alone.parent.mkdir()
    shutil.copyfile(archive["path"], alone)
    done = one.mar("smoke", alone, **chip)
    assert done.returncode == 2, done.stdout
    assert "was not verified where it was built, and its report is not beside it" in done.stderr
    assert one.mar("run", alone, **chip).returncode == 0
    done = one.mar("run", alone)
    assert done.returncode == 2
    assert "runs on Inf2 or Trn1, and not here: no NeuronCore." in done.stderr


def test_an_archive_for_inf1_is_compiled_anywhere_and_run_nowhere_else(
    tmp_path: Path, packages: Path, models: dict[tuple[str, str], Path]
) -> None:
    one = host(tmp_path, packages, None)
    path = one.config("bert", models["bert", "seq_classification"], "seq_classification", "neuron")
    (archive,) = one.mar.build(path, "--allow-unverified")
    assert archive["unverified"] == "no NeuronCore"


@pytest.mark.long
def test_a_worker_spreads_its_batches_over_cores(hosts: dict[str, Host], models: dict[tuple[str, str], Path]) -> None:
    for chip, one in hosts.items():
        hardware = {**WITH_CHIP[chip].get("hardware", {}), "data_parallel": 2}
        path = one.config(
            "parallel",
            models["bert", "token_classification"],
            "token_classification",
            chip,
            hardware=hardware,
            batchSize=6,
            handler={"batch_size": 6},
        )
        (archive,) = one.mar.build(path)
        assert archive["verified"] is True
        held = Archive(Path(archive["path"]))
        assert [held.json("graph.json")[name] for name in ("batch", "cores")] == [3, 2]
        assert yaml.safe_load(held.read("model-config.yaml"))["batchSize"] == 6
        assert one.called("DataParallel")[-1]["keywords"]["device_ids"] == [0, 1]


@pytest.mark.long
@pytest.mark.parametrize("chip", CHIPS)
def test_a_dynamic_batch_needs_no_padding(
    hosts: dict[str, Host], models: dict[tuple[str, str], Path], chip: str
) -> None:
    one = hosts[chip]
    hardware = {**WITH_CHIP[chip].get("hardware", {}), "dynamic_batch": True}
    model = models["roberta", "question_answering"]
    (archive,) = one.mar.build(one.config("dynamic", model, "question_answering", chip, hardware=hardware))
    assert archive["verified"] is True
    assert Archive(Path(archive["path"])).json("graph.json")["dynamic_batch"] is True


@pytest.mark.long
def test_loading_beside_others_or_late_is_kept_in_the_graph(
    hosts: dict[str, Host], models: dict[tuple[str, str], Path]
) -> None:
    one = hosts["neuronx"]
    hardware = {"cpu_backend": False, "async_load": True, "lazy_load": True}
    model = models["bert", "seq_classification"]
    (archive,) = one.mar.build(one.config("lazy", model, "seq_classification", "neuronx", hardware=hardware))
    assert archive["verified"] is True
    assert len(one.called("async_load")) == len(one.called("lazy_load")) == 2


@pytest.mark.long
def test_what_the_compiler_casts_is_within_its_tolerance_or_refused(
    hosts: dict[str, Host], models: dict[tuple[str, str], Path]
) -> None:
    one = hosts["neuronx"]
    model = models["bert", "token_classification"]
    hardware = {"cpu_backend": False, "auto_cast": "all", "auto_cast_type": "bf16", "target": "trn1"}
    path = one.config("cast", model, "token_classification", "neuronx", hardware=hardware)
    (archive,) = one.mar.build(path)
    assert archive["verified"] is True
    report = json.loads((one.mar.out / "reports" / "cast.json").read_text())
    assert report["tolerance"] == 2e-2
    assert report["largest_difference"] > 1e-5
    args = one.called("trace")[-1]["keywords"]["compiler_args"]
    assert args == ["--auto-cast", "all", "--auto-cast-type", "bf16", "--target", "trn1"]
    done = one.mar("build", path, "--set", "verify.tolerance=1e-9", "--out", one.mar.out, "--force", "serialize")
    assert done.returncode == 3, done.stderr
    assert "The compiled graph differs from the model by" in done.stderr


def test_what_a_compiler_says_is_kept_where_the_error_says(
    tmp_path: Path, packages: Path, models: dict[tuple[str, str], Path]
) -> None:
    one = host(tmp_path, packages, None)
    hardware = {"compiler_args": "--auto-cast odd"}
    path = one.config("odd", models["bert", "seq_classification"], "seq_classification", "neuronx", hardware=hardware)
    done = one.mar("build", path, "--out", one.mar.out)
    assert done.returncode == 3, done.stderr
    what, _, fix = done.stderr[done.stderr.index("error:") :].strip().splitlines()
    assert what.startswith("error: torch_neuronx cannot compile this model for 16 tokens")
    kept = Path(fix.partition("The compiler's own words: ")[2])
    assert kept == one.mar.cache / "compiler" / "odd"
    assert "invalid choice" in (kept / "printed.txt").read_text()


def test_a_chip_whose_cores_are_taken_is_told(
    tmp_path: Path, packages: Path, models: dict[tuple[str, str], Path]
) -> None:
    one = host(tmp_path, packages, "inf1", cores=1)
    path = one.config("busy", models["bert", "seq_classification"], "seq_classification", "neuron")
    with (tmp_path / "machine" / "core-0.lock").open("a") as core:
        fcntl.flock(core, fcntl.LOCK_EX)
        done = one.mar("build", path, "--out", one.mar.out)
    assert done.returncode == 3, done.stderr
    assert "Traceback" not in done.stderr
    assert "no free NeuronCore" in done.stderr


@pytest.mark.parametrize("chip", CHIPS)
def test_a_compiler_that_takes_too_long_is_ended_with_all_that_it_started(
    tmp_path: Path, packages: Path, models: dict[tuple[str, str], Path], chip: str
) -> None:
    one = host(tmp_path, packages, None)
    model = models["bert", "seq_classification"]
    path = one.config("slow", model, "seq_classification", chip, hardware={"compiler_timeout": 2})
    begin = time.monotonic()
    done = one.mar("build", path, "--out", one.mar.out, NEURON_STAND_IN_COMPILE_SECONDS=FOREVER)
    assert done.returncode == 3, done.stderr
    assert time.monotonic() - begin < 60
    what, _, fix = done.stderr[done.stderr.index("error:") :].strip().splitlines()
    assert what == "error: The compiler took longer than 2 s for 16 tokens (hardware.compiler_timeout)."
    assert "hardware.compiler_timeout" in fix
    assert not compilers()


def compilers() -> list[str]:
    """The command lines of this process's compilers that still run."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            state = (process / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if FOREVER in line and "sleep" in line and state != "Z":
            found.append(line)
    return found


@pytest.mark.long
def test_ctrl_c_ends_the_compiler_and_leaves_nothing_half_done(
    tmp_path: Path, packages: Path, models: dict[tuple[str, str], Path]
) -> None:
    one = host(tmp_path, packages, None)
    path = one.config("slow", models["bert", "seq_classification"], "seq_classification", "neuronx")
    env = {**os.environ, **one.mar.env, "NEURON_STAND_IN_COMPILE_SECONDS": FOREVER}
    command = [sys.executable, "-m", "mar_pipeline", "build", str(path), "--out", str(one.mar.out)]
    process = subprocess.Popen(command, cwd=one.mar.folder, env=env, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 300
    while not compilers() and time.monotonic() < until and process.poll() is None:
        time.sleep(0.1)
    assert compilers()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in said
    until = time.monotonic() + 10
    while compilers() and time.monotonic() < until:
        time.sleep(0.1)
    assert not compilers()
    assert not one.mar.out.exists()


@pytest.mark.long
def test_an_older_environment_of_its_own_compiles_and_answers_and_its_versions_are_in_the_key(
    tmp_path: Path, models: dict[tuple[str, str], Path]
) -> None:
    python = toolchain.interpreter()
    one = host(tmp_path, None, "inf2")
    # The oldest transformers has no GPT-2 that answers questions.
    for family, task in itertools.product(("bert", "distilbert", "roberta"), TASKS):
        hardware = {"python": str(python), "cpu_backend": False}
        path = one.config(f"{family}-{task}", models[family, task], task, "neuronx", hardware=hardware)
        (archive,) = one.mar.build(path)
        assert archive["verified"] is True
        there = Archive(Path(archive["path"])).json("provenance.json")["settings"]["serialize"]["toolchain"]
        assert there == versions(str(python), ("torch", "transformers", "torch-neuronx", "neuronx-cc"))
        assert there["transformers"] != metadata.version("transformers")
    plan = one.mar.plan(path)
    assert plan["serialize"]["cached"]
    # Another environment, another key, and the plan says which version it is.
    other = tmp_path / "other"
    other.mkdir()
    neuron_stand_in.install(other, torch_version=TORCH)
    plan = one.mar.plan(path, "--set", f"hardware.python={sys.executable}", PYTHONPATH=str(other))
    assert not plan["serialize"]["cached"]
    assert any("toolchain.transformers" in reason for reason in plan["serialize"]["reasons"])


def test_an_architecture_that_the_older_environment_does_not_know_is_told(tmp_path: Path) -> None:
    python = toolchain.interpreter()
    one = host(tmp_path, None, "inf2")
    model = tiny.save(tmp_path / "modernbert", "modernbert", "seq_classification")
    path = one.config("new", model, "seq_classification", "neuronx", hardware={"python": str(python)})
    done = one.mar("build", path, "--out", one.mar.out)
    assert done.returncode == 3, done.stderr
    what, _, fix = done.stderr[done.stderr.index("error:") :].strip().splitlines()
    assert (
        f"transformers {versions(str(python), ['transformers'])['transformers']} of {python} cannot build this model"
        in what
    )
    assert f"{python} -m pip install -U transformers" in fix


@pytest.mark.parametrize("chip", CHIPS)
@pytest.mark.parametrize("form", [pytest.param("torch.compile", marks=pytest.mark.long), "torchscript"])
def test_the_reference_examples_configuration_for_inferentia_builds_as_it_is(
    tmp_path: Path, packages: Path, chip: str, form: str
) -> None:
    one = host(tmp_path, packages, CHIPS[chip])
    mode = "sequence_classification"
    top, changes = reference_example.FORMS[form]
    text = reference_example.config(mode, top, {**changes, "hardware": chip, "batch_size": 4})
    path = tmp_path / "model-config.yaml"
    path.write_text(text)
    with running() as hub:
        hub.add("bert-base-uncased", reference_example.model(tmp_path / "bert", mode))
        online = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": hub.address}
        (archive,) = one.mar.build(path, "--allow-unverified", **online)
    assert path.read_text() == text
    held = Archive(Path(archive["path"]))
    facts = held.json("graph.json")
    assert (facts["device"], facts["batch"], facts["lengths"]) == (chip, 4, [150])
    assert yaml.safe_load(held.read("model-config.yaml"))["batchSize"] == 4
    # Inf1's graphs run at once on this host's chip; Inf2's are compiled as without one, and run on it all the same.
    assert archive["verified"] is True
