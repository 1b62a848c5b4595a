"""Graphs for NeuronCores in the handlers, by the stand-ins of AWS's packages, which need no chip."""

from __future__ import annotations

import ast
import fcntl
import itertools
import json
import os
import shutil
import subprocess
import sys
import types
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as some

from handlers import runtimes
from handlers.inference.batches import filled
from mar_pipeline.answers.compare import differences
from mar_pipeline.host import toolchain
from mar_pipeline.host.chips import CHIPS
from mar_pipeline.serving import diagnosis
from mar_pipeline.tasks import TASKS
from mar_pipeline.workers import client
from mar_pipeline.workers.client import WorkerCrash
from tests.support import ROOT, copied, tiny, workers
from tests.support.stand_ins import neuron as neuron_stand_in

torch = pytest.importorskip("torch")

from handlers.runtimes import neuron, neuron_package  # noqa: E402

LENGTHS = (16, 32, 64)
BATCH = 4
RELEASE = ".".join(torch.__version__.split("+")[0].split(".")[:3])
VERSION = f"{RELEASE}.{neuron_stand_in.COMPILER_VERSION}"
OLDER = "2.7.1"
"""A release of torch that this environment has not."""


@dataclass(frozen=True)
class Kind:
    """A way to compile a model."""

    family: str
    task: str
    device: str = "neuronx"
    cores: int = 1
    dynamic: bool = False

    def __str__(self) -> str:
        words = [self.family, self.task, self.device, f"{self.cores} cores" if self.cores > 1 else ""]
        return "-".join(word for word in (*words, "dynamic" if self.dynamic else "") if word)


PLAIN = Kind("bert", "seq_classification")
KINDS = [
    PLAIN,
    Kind("distilbert", "seq_classification", dynamic=True),
    Kind("electra", "token_classification"),
    Kind("roberta", "token_classification", cores=2),
    Kind("roberta", "question_answering"),
    Kind("bert", "question_answering", cores=2, dynamic=True),
    Kind("bert", "token_classification", device="neuron"),
    Kind("roberta", "seq_classification", device="neuron", cores=2),
    Kind("gpt2", "seq_classification"),
    Kind("gpt2", "token_classification", device="neuron"),
    Kind("gpt2", "question_answering", cores=2),
    Kind("distilbert", "token_classification"),
    Kind("distilbert", "question_answering", device="neuron"),
]
# Each family, task, device, number of cores, and a dynamic batch. The other combinations are of the long tier.
EACH = (PLAIN, *(kind for kind in KINDS if kind.dynamic), KINDS[2], KINDS[7], KINDS[9])
TIERED = [pytest.param(kind, marks=() if kind in EACH else pytest.mark.long, id=str(kind)) for kind in KINDS]


@dataclass(frozen=True)
class Made:
    """A compiled archive, unpacked, and the checkpoint that it was made of."""

    kind: Kind
    folder: Path
    checkpoint: Path


def environment(site_packages: Path | None, **others: Any) -> dict[str, str]:
    """Of a worker that is to find the packages there, and nothing that this process was told of chips."""
    paths = [str(path) for path in (ROOT, site_packages) if path]
    return {**neuron_stand_in.environment(**others), "PYTHONPATH": os.pathsep.join(paths)}


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A folder with the packages that were made for a release of torch."""
    root = tmp_path_factory.mktemp("site-packages")

    def get(release: str = RELEASE) -> Path:
        if not (root / release).exists():
            neuron_stand_in.install(root / release, torch_version=release)
        return root / release

    return get


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, packages: Callable[[str], Path]) -> Callable[..., Made]:
    """The archive of a kind, compiled once by the packages for a release of torch."""
    root, found = tmp_path_factory.mktemp("archives"), dict[Any, Made]()

    def get(kind: Kind) -> Made:
        if kind not in found:
            place = root / str(len(found))
            # DistilBERT takes no segments, and its tokenizers give none.
            checkpoint = tiny.save(place / "checkpoint", kind.family, kind.task, kind.family != "distilbert")
            found[kind] = Made(kind, lay_out(place, checkpoint, kind, packages(RELEASE)), checkpoint)
        return found[kind]

    return get


def lay_out(place: Path, checkpoint: Path, kind: Kind, site_packages: Path) -> Path:
    """The unpacked archive of a checkpoint that is compiled there, `place`."""
    folder, task = place / "archive", TASKS[kind.task]
    folder.mkdir()
    from mar_pipeline.workers.loading import prepare
    from mar_pipeline.workers.packed_tokenizer import pack

    # One kind by the worker as a program, as the package runs it.
    work = client.work if kind == PLAIN else workers.work
    job = reference(checkpoint, kind)
    prepared = prepare({**job, "out": str(place / "saved")}, lambda *_: None)
    facts = work(
        "compile",
        {
            **prepared,
            "chip": asdict(CHIPS[kind.device]),
            "checkpoint": str(place / "saved"),
            "auto_class": task.auto_class,
            "task": kind.task,
            "per_token": task.per_token,
            "outputs": task.outputs,
            "batch": BATCH,
            "lengths": LENGTHS,
            "dtype": "float32",
            "attn_implementation": "eager",
            "trust_remote_code": False,
            "tolerance": 1e-4,
            # Inf1's compiler casts if it is not told otherwise.
            "args": ["--target", "inf2"] if kind.device == "neuronx" else ["--fast-math", "none"],
            "timeout": None,
            "workdir": str(place / "compiler"),
            "cpu_backend": kind.device == "neuronx",
            "dynamic_batch": kind.dynamic,
            "async_load": False,
            "lazy_load": False,
            "cores": kind.cores,
            "out": str(folder),
        },
        scratch=place / "scratch",
        script=toolchain.WORKER,
        env={**environment(site_packages), "NEURON_PLATFORM_TARGET_OVERRIDE": "inf2"},
    )["facts"]
    (folder / "graph.json").write_text(json.dumps(facts))
    for file in checkpoint.iterdir():
        if file.suffix != ".safetensors":
            shutil.copy(file, folder)
    pack({"checkpoint": str(checkpoint), "out": str(folder)}, lambda *_: None)
    (folder / "MAR-INF").mkdir()
    manifest = {"model": {"modelName": "tiny", "handler": f"{kind.task}.py", "configFile": "model-config.yaml"}}
    (folder / "MAR-INF" / "MANIFEST.json").write_text(json.dumps(manifest))
    handler = {"mode": task.mode, "save_mode": "torchscript", "hardware": kind.device, "max_length": max(LENGTHS)}
    config = {"batchSize": BATCH * kind.cores, "deviceType": "cpu", "handler": handler}
    (folder / "model-config.yaml").write_text(yaml.safe_dump(config))
    if kind.task in tiny.LABELS:
        (folder / "index_to_name.json").write_text(json.dumps(dict(enumerate(tiny.LABELS[kind.task]))))
    copied(ROOT / "handlers", folder / "handlers")
    shutil.copyfile(ROOT / "handlers" / f"{kind.task}.py", folder / f"{kind.task}.py")
    return folder


def reference(checkpoint: Path, kind: Kind) -> dict[str, Any]:
    """A job for the original model."""
    return {"checkpoint": str(checkpoint), "auto_class": TASKS[kind.task].auto_class, "allow_untrained_head": False}


def inputs(task: str) -> list[dict[str, Any]]:
    """Inputs of a task that have so many tokens as to lie around each graph's length, mixed."""
    counts = [count for length in LENGTHS for count in (length - 1, length, length + 1)]
    texts = [" ".join(tiny.WORDS[(3 * size + at) % 40] for at in range(size - 2)) for size in (*counts, 3, 150)]
    texts = texts[::2] + texts[1::2]
    if task == "question_answering":
        return [{"question": "who was he", "context": text[16:] + " Tom works", "top_k": 3} for text in texts]
    if task == "token_classification":
        return [{"text": text, "aggregation_strategy": "none"} for text in texts]
    return [{"text": text, "top_k": 2} for text in texts]


def answered(
    folder: Path,
    requests: list[Any],
    scratch: Path,
    env: dict[str, str],
    work: Callable[..., Any] = workers.work,
    **job: Any,
) -> dict[str, Any]:
    """What an archive's handler answers in a process of its own, which has no transformers."""
    ask = {"folder": str(folder), "requests": requests, "batched": True, "without_transformers": True, **job}
    return dict(work("answer", ask, scratch=scratch, env=env))


@pytest.mark.slow
@pytest.mark.parametrize("kind", TIERED)
def test_answers_are_eager_transformers_for_part_of_a_batch_and_around_each_graphs_length(
    kind: Kind, made: Callable[..., Made], packages: Callable[[], Path], tmp_path: Path
) -> None:
    from mar_pipeline.workers.reference import answers

    archive, every = made(kind), inputs(kind.task)
    requests: list[Any] = [*every, *(every[start : start + size] for start, size in ((0, 1), (1, 2), (3, 3), (2, 4)))]
    requests.append(every)
    chip = "inf1" if kind.device == "neuron" else "inf2"
    calls = tmp_path / "calls"
    machine = neuron_stand_in.machine(tmp_path / "machine", cores=kind.cores, chip=chip)
    env = environment(packages(), machine=machine, calls=calls)
    # One kind by the worker as a program, as the package runs it.
    got = answered(archive.folder, requests, tmp_path, env, client.work if kind == PLAIN else workers.work)
    job = {**reference(archive.checkpoint, kind), "requests": requests, "task": kind.task}
    wanted = answers({**job, "settings": {"max_length": max(LENGTHS)}}, lambda *_: None)
    assert differences("single", wanted, got["single"], 1e-5) == []
    assert differences("batched", wanted, got["batched"], 1e-5) == []
    assert set(got["statuses"]) == {200}

    recorded = neuron_stand_in.calls(calls)
    assert {call["at_import"]["NEURON_RT_NUM_CORES"] for call in recorded} == {str(kind.cores)}
    runs = [call["shapes"][0] for call in recorded if call["function"].endswith(": run")]
    # Each once with a full batch before the first request, spread over the cores.
    assert runs[: len(LENGTHS) * kind.cores] == [[BATCH, length] for length in LENGTHS for _ in range(kind.cores)]
    assert {length for _, length in runs} == set(LENGTHS)
    if not kind.dynamic:
        assert {rows for rows, _ in runs} == {BATCH}


@pytest.mark.slow
def test_such_an_archive_has_no_explanations_and_says_so(
    made: Callable[..., Made], packages: Callable[[], Path], tmp_path: Path
) -> None:
    machine = neuron_stand_in.machine(tmp_path / "machine")
    env = environment(packages(), machine=machine)
    got = answered(made(PLAIN).folder, [{"text": "good"}], tmp_path, env, explain=True)
    assert got["statuses"] == [501]
    said = got["single"][0]["error"]["message"]
    assert said.startswith("an archive that is compiled for Inferentia has no explanations")
    assert "hardware: cpu" in said


def reason(folder: Path, scratch: Path, env: dict[str, str]) -> str:
    """Why a handler does not load: the line that is shown of its traceback."""
    with pytest.raises(WorkerCrash) as caught:
        answered(folder, [], scratch, env)
    line = diagnosis.cause(str(caught.value))
    assert str(caught.value).strip().endswith(line)
    return line


INSTALL = rf"{sys.executable} -m pip install --extra-index-url https://pip.repos.neuron.amazonaws.com"
LINE = ".".join(RELEASE.split(".")[:2])


@pytest.fixture
def archive(made: Callable[..., Made], tmp_path: Path) -> Path:
    """A copy of an archive to be changed."""
    return Path(shutil.copytree(made(PLAIN).folder, tmp_path / "archive"))


@contextmanager
def held(*cores: Path) -> Iterator[None]:
    """While another process has these NeuronCores."""
    files = [core.open("w") for core in cores]
    try:
        for file in files:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        for file in files:
            file.close()


@pytest.mark.slow
def test_a_package_that_is_not_installed_is_told_with_the_command_that_installs_it(
    archive: Path, tmp_path: Path
) -> None:
    assert reason(archive, tmp_path, environment(None)) == (
        "ImportError: torch-neuronx is not installed on this server, and this archive's graphs need it: "
        f"{INSTALL} 'torch-neuronx=={LINE}.*'"
    )


@pytest.mark.slow
def test_a_placeholder_is_told_from_the_real_package(archive: Path, tmp_path: Path) -> None:
    neuron_stand_in.install_placeholders(tmp_path / "placeholders")
    assert reason(archive, tmp_path, environment(tmp_path / "placeholders")) == (
        "ImportError: torch-neuronx 1.0 is the package index's placeholder of that name, not AWS's package: "
        f"{sys.executable} -m pip uninstall -y torch-neuronx; {INSTALL} 'torch-neuronx=={LINE}.*'"
    )


@pytest.mark.slow
def test_another_line_of_releases_is_refused_with_both_versions(
    archive: Path, packages: Callable[..., Path], tmp_path: Path
) -> None:
    machine = neuron_stand_in.machine(tmp_path / "machine")
    assert reason(archive, tmp_path, environment(packages(OLDER), machine=machine)) == (
        f"RuntimeError: this graph was compiled by torch-neuronx {VERSION} and this server has {OLDER}.9.9.9: "
        f"{INSTALL} 'torch-neuronx=={LINE}.*', or build the archive again with the server's"
    )


@pytest.mark.slow
def test_a_graph_that_does_not_run_by_a_near_release_is_told_with_both_versions(
    archive: Path, packages: Callable[..., Path], tmp_path: Path
) -> None:
    machine = neuron_stand_in.machine(tmp_path / "machine")
    facts = json.loads((archive / "graph.json").read_text())
    facts["versions"]["torch-neuronx"] = f"{RELEASE}.1.1"
    (archive / "graph.json").write_text(json.dumps(facts))
    env = environment(packages(), machine=machine)
    assert answered(archive, [{"text": "good"}], tmp_path, env)["statuses"] == [200]
    # One whose graph says that it is of another line, whatever graph.json says.
    graph = archive / "model-32.pt"
    other = tmp_path / "other"
    neuron_stand_in.install(other, torch_version=OLDER)
    lay_over(graph, other, tmp_path)
    line = reason(archive, tmp_path, env)
    assert line.startswith(
        f"RuntimeError: model-32.pt was compiled by torch-neuronx {RELEASE}.1.1, this server has {VERSION}, and it "
        "does not run there: "
    )
    assert line.endswith(f"; {INSTALL} 'torch-neuronx=={RELEASE}.1.1', or build the archive again with the server's")
    assert "Could not load the model" in line


def lay_over(graph: Path, site_packages: Path, scratch: Path) -> None:
    """Put another graph of 32 tokens in a graph's place, as another release of the package compiles it."""
    code = (
        "import sys, torch, torch_neuronx\n"
        "ones = torch.ones(4, 32, dtype=torch.long)\n"
        "function = lambda ids, mask, types: ((ids + mask + types).float(),)\n"
        "made = torch_neuronx.trace(function, (ones, ones, ones), compiler_args='--target inf2', cpu_backend=True)\n"
        "torch.jit.save(made, sys.argv[1])\n"
    )
    env = {**os.environ, **environment(site_packages), "NEURON_PLATFORM_TARGET_OVERRIDE": "inf2"}
    subprocess.run([sys.executable, "-c", code, str(graph)], check=True, env=env, cwd=scratch)


@pytest.mark.slow
def test_a_machine_without_a_chip_is_told(archive: Path, packages: Callable[..., Path], tmp_path: Path) -> None:
    assert reason(archive, tmp_path, environment(packages())) == (
        "RuntimeError: there is no NeuronCore here (no /dev/neuron0), and this archive was compiled for Inf2 or Trn1: "
        "serve it on such a machine, with AWS's driver, and let a container have the device (--device=/dev/neuron0)"
    )


@pytest.mark.slow
def test_a_chip_whose_cores_are_all_taken_is_told(
    archive: Path, made: Callable[..., Made], packages: Callable[..., Path], tmp_path: Path
) -> None:
    machine = neuron_stand_in.machine(tmp_path / "machine", cores=2)
    env = environment(packages(), machine=machine)
    with held(machine / "core-0.lock"):
        assert answered(archive, [{"text": "good"}], tmp_path, env)["statuses"] == [200]
    said = (
        "RuntimeError: no NeuronCore is free for this worker, which asked for {} (NEURON_RT_NUM_CORES): a core belongs "
        "to one process, and there are more workers than cores (maxWorkers), or another process has them (neuron-ls "
        "shows it)"
    )
    with held(machine / "core-0.lock", machine / "core-1.lock"):
        assert reason(archive, tmp_path, env) == said.format(1)
    two = made(Kind("roberta", "token_classification", cores=2)).folder
    with held(machine / "core-1.lock"):
        assert reason(two, tmp_path, env) == said.format(2)
        chosen = {**env, "NEURON_RT_VISIBLE_CORES": "1"}
        assert "which asked for cores 1 (NEURON_RT_VISIBLE_CORES)" in reason(archive, tmp_path, chosen)
        assert answered(archive, [{"text": "good"}], tmp_path, {**env, "NEURON_RT_VISIBLE_CORES": "0"})["single"]


@pytest.mark.slow
def test_a_damaged_or_a_missing_graph_is_told(archive: Path, packages: Callable[..., Path], tmp_path: Path) -> None:
    env = environment(packages(), machine=neuron_stand_in.machine(tmp_path / "machine"))
    graph = archive / "model-32.pt"
    graph.write_bytes(graph.read_bytes()[:2000])
    line = reason(archive, tmp_path, env)
    said = "PytorchStreamReader failed reading zip archive: failed finding central directory"
    assert line == f"ValueError: model-32.pt is damaged: {said}; build the archive again"
    graph.unlink()
    assert reason(archive, tmp_path, env) == "ValueError: model-32.pt is missing: build the archive again"


FACTS = {
    "format": 1,
    "task": "seq_classification",
    "device": "neuronx",
    "inputs": ["input_ids", "attention_mask"],
    "outputs": ["logits"],
    "batch": 4,
    "lengths": [16, 8],
    "dynamic_batch": False,
    "cores": 1,
    "versions": {"torch": torch.__version__, "torch-neuronx": "1.2.3"},
}
CLASSIFIER = runtimes.Task("seq_classification", "AutoModelForSequenceClassification", per_token=False)
TAGGER = runtimes.Task("token_classification", "AutoModelForTokenClassification")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"lengths": []}, "its lengths, batch and cores are not whole numbers above 0"),
        ({"lengths": [8, "16"]}, "its lengths, batch and cores are not whole numbers above 0"),
        ({"batch": 0}, "its lengths, batch and cores are not whole numbers above 0"),
        ({"cores": True}, "its lengths, batch and cores are not whole numbers above 0"),
        ({"versions": None}, "it has no versions that can be read"),
        ({"format": 2}, "its format is 2, and this archive's handler knows 1"),
        ({"device": "neuron"}, "its graphs are for neuron, and the archive is for neuronx"),
    ],
    ids=str,
)
def test_a_graph_json_that_cannot_be_is_told(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    (tmp_path / "graph.json").write_text(json.dumps({**FACTS, **change}))
    with pytest.raises(ValueError, match=f"^graph.json is damaged: {said}; build the archive again$"):
        neuron.load(tmp_path, {"handler": {"hardware": "neuronx"}}, torch.device("cpu"), 0, CLASSIFIER)


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> neuron_package.Package:
    """As graph.json names it, where nothing was said of cores."""
    for name in ("NEURON_RT_NUM_CORES", "NEURON_RT_VISIBLE_CORES"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    return neuron_package.Package({**FACTS, "cores": 2})


def real(**others: Any) -> types.ModuleType:
    module = types.ModuleType("torch_neuronx")
    vars(module).update(others)
    return module


def test_cores_are_asked_for_before_the_import_unless_the_user_has_chosen_some(
    package: neuron_package.Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str | None] = []

    def imported(_: str) -> Any:
        seen.append(os.environ.get("NEURON_RT_NUM_CORES"))
        return real(trace=print)

    monkeypatch.setattr(neuron_package.importlib, "import_module", imported)
    package.imported()
    monkeypatch.delenv("NEURON_RT_NUM_CORES")
    monkeypatch.setenv("NEURON_RT_VISIBLE_CORES", "3,4")
    package.imported()
    assert seen == ["2", None]


@pytest.mark.parametrize("value", [None, "", "0"])
def test_a_package_that_was_imported_with_every_core_is_refused(
    package: neuron_package.Package, value: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch_neuronx", real(trace=print))
    if value is not None:
        monkeypatch.setenv("NEURON_RT_NUM_CORES", value)
    with pytest.raises(RuntimeError, match="torch_neuronx was imported before NEURON_RT_NUM_CORES was set, so this"):
        package.imported()
    monkeypatch.setenv("NEURON_RT_NUM_CORES", "2")
    assert package.imported() is sys.modules["torch_neuronx"]


def test_a_module_without_the_function_is_a_placeholder_and_one_that_breaks_says_so(
    package: neuron_package.Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEURON_RT_NUM_CORES", "2")
    monkeypatch.setitem(sys.modules, "torch_neuronx", real())
    with pytest.raises(ImportError, match=r"torch-neuronx .* is the package index's placeholder of that name"):
        package.imported()

    def breaks(_: str) -> Any:
        raise OSError("libnrt.so.1: cannot open shared object file")

    monkeypatch.setattr(neuron_package.importlib, "import_module", breaks)
    with pytest.raises(ImportError, match=rf"does not import beside torch {RELEASE}\S*: libnrt.so.1: cannot open"):
        package.imported()


def test_another_line_of_torch_is_refused_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEURON_RT_NUM_CORES", "1")
    monkeypatch.setitem(sys.modules, "torch_neuronx", real(trace=print))
    package = neuron_package.Package({**FACTS, "versions": {"torch": "1.9.1+cpu"}})
    with pytest.raises(RuntimeError, match=r"compiled by torch 1.9.1\+cpu and this server has .*'torch==1.9.\*', or"):
        package.imported()


def runtime(task: runtimes.Task, **changes: Any) -> tuple[neuron.Neuron, list[tuple[int, ...]]]:
    """One whose graphs add the ids of a row, where the mask has them, and the shapes that they were called with."""
    made, shapes = neuron.Neuron({**FACTS, "lengths": [8, 16], **changes}, 7, task), list[tuple[int, ...]]()

    def graph(length: int) -> Callable[..., Any]:
        def run(ids: Any, mask: Any) -> Any:
            assert ids.shape[1] == length
            assert (ids.dtype, mask.dtype) == (torch.int64, torch.int64)
            assert mask.any(1).all()  # of a row of nothing but padding an attention can make no numbers
            assert ids[mask == 0].eq(7).all()
            shapes.append(tuple(ids.shape))
            each = (ids * mask).to(torch.bfloat16)
            return (each,) if made.each else (each.sum(1, keepdim=True),)

        return run

    for length in (8, 16):
        made.add(length, graph(length))
    return made, shapes


@pytest.mark.parametrize("task", [CLASSIFIER, TAGGER], ids=lambda task: task.name)
@pytest.mark.parametrize("changes", [{}, {"cores": 2}, {"dynamic_batch": True}], ids=str)
def test_any_number_of_rows_of_any_length_comes_back_as_it_went(changes: dict[str, Any], task: runtimes.Task) -> None:
    model, shapes = runtime(task, **changes)
    step = 4 * changes.get("cores", 1)
    assert shapes == [(step, 8), (step, 16)]
    for rows, length in itertools.product(range(1, 12), (1, 7, 8, 9, 15, 16)):
        shapes.clear()
        ids = torch.randint(1, 3, (rows, length))
        mask = torch.ones_like(ids)
        mask[:, length // 2 + 1 :] = 0
        ids[mask == 0] = 7
        out = model.run({"input_ids": ids, "attention_mask": mask, "token_type_ids": mask})["logits"]
        wanted = (ids * mask).float()
        assert out.dtype == torch.float32
        assert torch.equal(out, wanted if model.each else wanted.sum(1, keepdim=True))
        traced = 8 if length <= 8 else 16
        assert shapes == ([(rows, traced)] if "dynamic_batch" in changes else [(step, traced)] * -(-rows // step))
    with pytest.raises(ValueError, match="17 tokens, and the longest graph takes 16"):
        model.run({name: torch.ones(1, 17, dtype=torch.long) for name in ("input_ids", "attention_mask")})


def every_way(items: list[int], most: int) -> Iterator[list[list[int]]]:
    """Every partition of some items into groups of so many at most."""
    if not items:
        yield []
        return
    first, *others = items
    for rest in every_way(others, most):
        yield [[first], *rest]
        for index, group in enumerate(rest):
            if len(group) < most:
                yield [*rest[:index], [first, *group], *rest[index + 1 :]]


@given(some.lists(some.integers(1, 64), max_size=7), some.sets(some.integers(1, 63), max_size=3), some.integers(1, 4))
@settings(deadline=None, max_examples=150)
def test_no_way_to_fill_graphs_takes_less_time_or_fewer_runs(lengths: list[int], traced: set[int], rows: int) -> None:
    graphs = sorted({*traced, 64})

    def cost(way: list[list[int]]) -> tuple[int, int]:
        return sum(min(graph for graph in graphs if graph >= max(run)) for run in way), len(way)

    runs = filled(lengths, graphs, rows)
    assert sorted(index for run in runs for index in run) == list(range(len(lengths)))
    assert all(len(run) <= rows for run in runs)
    ways = [cost(way) for way in every_way(lengths, rows)]
    assert cost([[lengths[index] for index in run] for run in runs]) == min(ways)


def test_short_texts_fill_a_long_ones_batch_where_that_saves_a_run() -> None:
    assert [sorted(run) for run in filled([5, 60, 7, 9], [16, 64], 4)] == [[0, 1, 2, 3]]
    assert Counter(map(len, filled([64] * 2 + [3] * 9, [16, 64], 4))) == {4: 2, 3: 1}
    assert filled([], [16], 4) == []


def test_the_runtime_is_the_chips_whatever_the_save_mode() -> None:
    assert runtimes.named({"save_mode": "torchscript", "hardware": "neuron"}) == "neuron"
    assert runtimes.named({"save_mode": "torchscript", "hardware": "neuronx"}) == "neuron"
    assert runtimes.named({"save_mode": "torchscript", "hardware": "cpu"}) == "torchscript"
    assert runtimes.named({"save_mode": "pretrained"}) == "pretrained"


def test_a_tokenizer_that_an_older_package_cannot_read_is_told_with_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from handlers.text import tokenization

    (tmp_path / "tokenizer.json").write_text('{"model": {"type": "Newest"}}')
    monkeypatch.setattr(tokenization.tokenizers, "__version__", "0.13.3")
    with pytest.raises(
        ValueError, match=r"^tokenizers 0\.13\.3 cannot read .* \(.+\), which a newer one wrote: "
    ) as told:
        tokenization.Tokenizer(tmp_path)
    assert str(told.value).endswith(f": {sys.executable} -m pip install 'tokenizers>=0.20'")
    monkeypatch.setattr(tokenization.tokenizers, "__version__", "0.20.3")
    with pytest.raises(ValueError, match=r"^tokenizers 0\.20\.3 cannot read .*\): build the archive again$"):
        tokenization.Tokenizer(tmp_path)
    (tmp_path / "provenance.json").write_text('{"versions": {"tokenizers": "0.23.3"}}')
    with pytest.raises(ValueError, match=r", which 0\.23\.3 wrote: .* 'tokenizers==0\.23\.3'$"):
        tokenization.Tokenizer(tmp_path)


ASKED = [ROOT / "pipeline" / "portable" / f"{name}.py" for name in ("context", "emulator", "foreign", "handler")]
SERVED = [*sorted((ROOT / "handlers").rglob("*.py")), *ASKED]


@pytest.mark.parametrize("file", SERVED, ids=lambda file: str(file.relative_to(ROOT)))
def test_what_serves_needs_no_newer_python_than_3_8(file: Path) -> None:
    """What vermin takes for annotations, which are not evaluated: types of 3.9 and 3.10 where they are."""
    tree = ast.parse(file.read_text(encoding="utf-8"), feature_version=(3, 8))
    assert "annotations" in {
        name for node in tree.body if isinstance(node, ast.ImportFrom) for name in _names(node)
    } or (not any(isinstance(node, (ast.FunctionDef, ast.AnnAssign)) for node in ast.walk(tree)))
    for node in _evaluated(tree):
        if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name):
            assert node.value.id not in ("dict", "frozenset", "list", "set", "tuple", "type"), ast.unparse(node)
            assert node.value.id not in ("Callable", "Counter", "Iterable", "Iterator", "Sequence"), ast.unparse(node)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
            sides = [ast.unparse(side) for side in (node.left, node.right)]
            assert not any(side.startswith("{") or side in ("bytes", "dict", "int", "list", "str") for side in sides)


def _names(node: ast.ImportFrom) -> set[str]:
    return {alias.name for alias in node.names}


def _evaluated(node: ast.AST) -> Iterator[ast.AST]:
    """What is below a node, less annotations."""
    yield node
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns"):
            continue
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, ast.AST):
                yield from _evaluated(each)


def test_what_answers_elsewhere_is_loaded_by_its_path_alone(tmp_path: Path) -> None:
    code = (
        "import importlib, importlib.util, sys\n"
        "from pathlib import Path\n"
        "folder = Path(sys.argv[1])\n"
        "spec = importlib.util.spec_from_file_location('mar_local', folder / '__init__.py')\n"
        "sys.modules['mar_local'] = importlib.util.module_from_spec(spec)\n"
        "module = importlib.import_module('mar_local.emulator')\n"
        "assert callable(module.answers)\n"
        "assert not any(name.split('.')[0] in ('mar_pipeline', 'torch', 'pydantic') for name in sys.modules)\n"
    )
    file = ROOT / "pipeline" / "portable"
    subprocess.run([sys.executable, "-c", code, str(file)], check=True, cwd=tmp_path)
