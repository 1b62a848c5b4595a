"""The stand-ins for AWS's packages enforce what the chip and the real packages do; the second environment is one."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pytest

from tests.support import toolchain
from tests.support.stand_ins import neuron as neuron_stand_in

pytestmark = pytest.mark.slow

TORCH = metadata.version("torch")
UNINITIALIZED = "The PyTorch Neuron Runtime could not be initialized"
FOR_INF2 = {"NEURON_PLATFORM_TARGET_OVERRIDE": "inf2"}

PRELUDE = """
import os
import torch

class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.words, self.head = torch.nn.Embedding(20, 8), torch.nn.Linear(8, 2)

    def forward(self, ids, mask):
        words = self.words(ids) * mask[..., None]
        return self.head(words.mean(1)), self.head(words)

model = Model().eval()

def rows(batch, length=6):
    ids = torch.arange(batch * length).reshape(batch, length) % 20
    return ids, (ids % 3 > 0).long()

def worst(got, batch):
    with torch.no_grad():
        return max(float((one - other).abs().max()) for one, other in zip(got, model(*rows(batch))))

def refused(call):
    try:
        call()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""

CPU = {"cpu_backend": True, "compiler_args": "--target inf2"}
"""


# Importing torch takes longer than most tests: processes are forked from one that has.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["torch", __name__])


def _run(code: str, env: dict[str, str], line: Connection) -> None:
    """Run code in a group and an environment of its own; it can `say` what pickles, and `wait`."""
    os.setsid()
    os.chdir("/")
    os.environ.update(env)
    sys.path[:0] = filter(None, env.get("PYTHONPATH", "").split(os.pathsep))
    exec(
        compile(f"{PRELUDE}\n{code}", "code of the test", "exec"),
        {"__name__": "code", "say": line.send, "wait": line.recv},
    )


@contextmanager
def running(code: str, **env: str) -> Iterator[tuple[ForkServerProcess, Connection]]:
    """A process that runs the code, and is killed at the end; and the line to it."""
    ours, theirs = FORKS.Pipe()
    process = FORKS.Process(target=_run, args=(code, env, theirs))
    process.start()
    theirs.close()
    try:
        yield process, ours
    finally:
        process.kill()
        process.join()
        ours.close()


def said(code: str, **env: str) -> Any:
    """What a fresh process says at last. Fails the test if it fails."""
    with running(code, **env) as (process, line):
        try:
            answer = line.recv()
        except EOFError:
            pytest.fail("the process failed: its traceback is on standard error")
        process.join()
        assert process.exitcode == 0
        return answer


@contextmanager
def holding(code: str, **env: str) -> Iterator[ForkServerProcess]:
    """A process that has run the code, and lives on."""
    with running(f"{code}\nsay('ready'); wait()", **env) as (process, line):
        assert line.recv() == "ready"
        yield process


Machine = Callable[..., dict[str, str]]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site-packages")
    neuron_stand_in.install(folder, torch_version=TORCH)
    return folder


@pytest.fixture(scope="module")
def no_chip(site: Path) -> dict[str, str]:
    return neuron_stand_in.environment(site)


@pytest.fixture
def on(site: Path, tmp_path: Path) -> Machine:
    """The environment on a pretended machine of the test's own."""

    def environment(chip: str = "inf2", cores: int = 2, **env: str) -> dict[str, str]:
        machine = neuron_stand_in.machine(tmp_path / chip, cores=cores, chip=chip)
        return {**neuron_stand_in.environment(site, machine, tmp_path / "calls"), **env}

    return environment


@pytest.fixture(scope="module")
def graphs(site: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Graphs of batch 4 and length 6: of each package, a lazy and an asynchronous one."""
    folder = tmp_path_factory.mktemp("graphs")
    said(
        f"""
import torch_neuron, torch_neuronx
os.chdir({str(folder)!r})
graph = torch_neuronx.trace(model, rows(4), **CPU)
torch.jit.save(graph, "neuronx.pt")
torch_neuronx.lazy_load(graph)
torch.jit.save(graph, "lazy.pt")
torch_neuronx.lazy_load(graph, False)
torch_neuronx.async_load(graph)
torch.jit.save(graph, "async.pt")
torch.jit.save(torch_neuron.trace(model, rows(4), compiler_args=["--fast-math", "none"]), "neuron.pt")
torch.jit.save(torch_neuronx.trace(model, rows(4), cpu_backend=True, compiler_args="--target trn2"), "trn2.pt")
say(None)
""",
        **neuron_stand_in.environment(site),
        **FOR_INF2,
    )
    return {file.stem: str(file) for file in folder.iterdir()}


def test_signatures_are_the_documented_ones(no_chip: dict[str, str]) -> None:
    got = said(
        """
import inspect, torch_neuron, torch_neuronx as x
say([str(inspect.signature(one)).replace(": 'Any'", "") for one in (
    x.DataParallel, torch_neuron.DataParallel)] + [' '.join(inspect.signature(one).parameters) for one in (
    x.trace, x.dynamic_batch, x.async_load, x.lazy_load, torch_neuron.trace)])
""",
        **no_chip,
    )
    neuronx = "func example_inputs _ input_output_aliases compiler_workdir compiler_args partitioner_config"
    neuron = "model example_inputs compiler_args compiler_timeout compiler_workdir fallback dynamic_batch_size"
    assert got == [
        "(model, device_ids = None, dim: 'int' = 0, set_dynamic_batching: 'bool' = True) -> 'None'",
        "(model, device_ids = None, dim: 'int' = 0) -> 'None'",
        f"{neuronx} inline_weights_to_neff cpu_backend",
        "neuron_script",
        "trace enable_async_load",
        "trace enable_lazy_load",
        f"{neuron} subgraph_builder_function minimum_segment_size single_fusion_ratio_threshold optimizations kwargs",
    ]


@pytest.mark.parametrize(("chip", "graph"), [("inf2", "neuronx"), ("trn1", "neuronx"), ("inf1", "neuron")])
def test_a_graph_answers_as_its_model_does(chip: str, graph: str, graphs: dict[str, str], on: Machine) -> None:
    code = f"import torch_{graph}; say(worst(torch.jit.load({graphs[graph]!r})(*rows(4)), 4))"
    assert said(code, **on(chip)) == 0


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ("rows(3)", "Incorrect tensor shape at input tensor #0: received 3 6, expected 4 6."),
        ("rows(4, 5)", "Incorrect tensor shape at input tensor #0: received 4 5, expected 4 6."),
        ("[one.int() for one in rows(4)]", "Incorrect tensor type at input tensor #0: received torch.int32"),
    ],
    ids=["batch", "length", "type"],
)
def test_a_graph_takes_only_what_it_was_compiled_for(
    inputs: str, words: str, graphs: dict[str, str], on: Machine
) -> None:
    code = f"import torch_neuronx; graph = torch.jit.load({graphs['neuronx']!r})"
    error = said(f"{code}; say(refused(lambda: graph(*{inputs})))", **on())
    assert error.startswith("RuntimeError: ")
    assert words in error


@pytest.mark.parametrize("package", ["torch_neuron", "torch_neuronx"])
def test_only_tensors_go_in_and_only_tensors_come_out(package: str, no_chip: dict[str, str]) -> None:
    cpu = ", **CPU" if package == "torch_neuronx" else ""
    strict = ", strict=False" if package == "torch_neuron" else ""
    dictionary = "Encountering a dict at the output of the tracer"
    expected = [
        dictionary,
        # The real torch_neuron would take it.
        "Only tensors or tuples of tensors can be output from a graph, not (dict)"
        if package == "torch_neuron"
        else dictionary,
        "Only tensors or tuples of tensors can be output from a graph, not (Tensor, list)",
        "Only tensors, lists, tuples of tensors, or dictionary of tensors can be output",
        "Type '(dict)' cannot be traced",
        "Type '(Tensor, int)' cannot be traced",
        "Unsupported data type torch.int32 at input tensor #0",
        "",
    ]
    errors = said(
        f"""
from {package} import trace
one = torch.ones(2, 2)
say([
    refused(lambda: trace(lambda x: {{"out": x}}, one{cpu})),
    refused(lambda: trace(lambda x: {{"out": x}}, one{cpu or strict})),
    refused(lambda: trace(lambda x: (x, [x]), (one,){cpu})),
    refused(lambda: trace(lambda x: "out", one{cpu})),
    refused(lambda: trace(lambda x: x, ({{"x": one}},){cpu})),
    refused(lambda: trace(lambda x: x, (one, 3){cpu})),
    refused(lambda: trace(lambda x: x, one.int(){cpu})),
    refused(lambda: trace(lambda x: x, one{cpu})),
])
""",
        **no_chip,
        **FOR_INF2,
    )
    assert [error.partition(":")[0] for error in errors] == ["RuntimeError"] * 7 + [""]
    for error, words in zip(errors, expected, strict=True):
        assert words in error


def test_with_dynamic_batching_the_batch_alone_may_be_any_and_runs_in_pieces(on: Machine) -> None:
    errors = said(
        """
import torch_neuronx
graph = torch_neuronx.trace(model, rows(4))
assert torch_neuronx.dynamic_batch(graph) is graph
torch.jit.save(graph, "/tmp/" + str(os.getpid()))
graph = torch.jit.load("/tmp/" + str(os.getpid()))
os.remove("/tmp/" + str(os.getpid()))
assert [len(graph(*rows(batch))[1]) for batch in range(1, 10)] == list(range(1, 10))
assert max(worst(graph(*rows(batch)), batch) for batch in range(1, 10)) < 1e-6
say([refused(lambda: graph(*rows(4, 5))), refused(lambda: graph(rows(3)[0], rows(4)[0]))])
""",
        **on(),
    )
    assert "Incorrect tensor shape at input tensor #0: received 4 5" in errors[0]
    assert "the same size of dimension 0" in errors[1]


def test_torch_neuron_frees_the_batch_by_a_keyword_and_forwards_others(on: Machine) -> None:
    got = said(
        """
import torch_neuron
args = ["--fast-math", "none"]
graph = torch.neuron.trace(model, rows(4), dynamic_batch_size=True, compiler_args=args, strict=False)
say([worst(graph(*rows(7)), 7), refused(lambda: torch_neuron.trace(model, rows(4), no_keyword=1))])
""",
        **on("inf1"),
    )
    assert got[0] < 1e-6
    assert got[1].startswith("TypeError")
    assert "no_keyword" in got[1]


def test_data_parallel_spreads_a_batch_over_the_cores_of_its_process(
    graphs: dict[str, str], on: Machine, tmp_path: Path
) -> None:
    got = said(
        f"""
import torch_neuronx
graph = torch.jit.load({graphs["lazy"]!r})
spread = torch_neuronx.DataParallel(graph)
fixed = torch_neuronx.DataParallel(graph, ["nc:0", 1], set_dynamic_batching=False)
also_fixed = torch_neuronx.DataParallel(graph, [1])
also_fixed.disable_dynamic_batching()
say([
    spread.num_workers, spread.split_size,
    max(worst(spread(*rows(batch)), batch) for batch in (1, 5, 8, 9)),
    worst(fixed(*rows(8)), 8), worst(also_fixed(*rows(4)), 4),
    refused(lambda: fixed(*rows(6))), refused(lambda: torch_neuronx.DataParallel(graph, [2])),
])
""",
        **on(),
    )
    assert got[:2] == [4, None]
    assert max(got[2:5]) < 1e-6
    assert "received 3 6, expected 4 6" in got[5]
    assert got[6].startswith("ValueError: Invalid device_ids [2]")
    run = [
        call["shapes"][0] for call in neuron_stand_in.calls(tmp_path / "calls") if call["function"].endswith(": run")
    ]
    # A row alone; 5 of 2, 2 and 1; 8 of 4 and 4; 9 of 4, 4 and 1.
    assert sorted(run[:9]) == sorted([[rows, 6] for rows in (1, 2, 2, 1, 4, 4, 4, 4, 1)])


def test_data_parallel_needs_a_core(graphs: dict[str, str], no_chip: dict[str, str]) -> None:
    code = f"import torch_neuronx as x; graph = torch.jit.load({graphs['lazy']!r})"
    error = said(f"{code}; say(refused(lambda: x.DataParallel(graph)))", **no_chip)
    assert "cannot determine the number of available NeuronCores" in error


def test_a_core_belongs_to_one_process_until_that_ends(graphs: dict[str, str], on: Machine) -> None:
    load = f"import torch_neuronx; load = lambda: torch.jit.load({graphs['neuronx']!r})"
    env = on(NEURON_RT_NUM_CORES="1")
    with holding(f"{load}\nload()", **env) as first, holding(f"{load}\nload()", **env):
        refused = said(f"{load}\nsay(refused(load))", **env)
        first.kill()
        first.join()
        assert said(f"{load}\nsay(worst(load()(*rows(4)), 4))", **env) == 0
    assert refused.startswith("RuntimeError: ")
    assert UNINITIALIZED in refused


def test_a_process_that_names_no_number_of_cores_takes_them_all(graphs: dict[str, str], on: Machine) -> None:
    load = f"import torch_neuronx; load = lambda: torch.jit.load({graphs['neuronx']!r})"
    with holding(f"{load}\nload()", **on()):
        assert UNINITIALIZED in said(f"{load}\nsay(refused(load))", **on(NEURON_RT_NUM_CORES="1"))


def test_the_number_of_cores_counts_as_it_was_at_the_import(graphs: dict[str, str], on: Machine) -> None:
    code = f"""
os.environ["NEURON_RT_NUM_CORES"] = "1"
graph = torch.jit.load({graphs["neuronx"]!r})
from neuron_stand_in_runtime import machine
say(machine.take(2))
"""
    assert said(f"import torch_neuronx\n{code}", **on()) == 2
    assert said(f"os.environ['NEURON_RT_NUM_CORES'] = '1'\nimport torch_neuronx\n{code}", **on()) == 1


def test_visible_cores_are_those_that_are_taken(graphs: dict[str, str], on: Machine) -> None:
    load = f"import torch_neuronx; load = lambda: torch.jit.load({graphs['neuronx']!r})"
    ask = f"{load}\nsay(refused(load))"
    with holding(f"{load}\nload()", **on(NEURON_RT_VISIBLE_CORES="1", NEURON_RT_NUM_CORES="2")):
        assert said(ask, **on(NEURON_RT_VISIBLE_CORES="0")) == ""
        assert UNINITIALIZED in said(ask, **on(NEURON_RT_VISIBLE_CORES="0-1"))
    assert UNINITIALIZED in said(ask, **on(NEURON_RT_VISIBLE_CORES="1-2"))
    assert said(ask, **on(NEURON_RT_VISIBLE_CORES="0-1")) == ""


def test_a_core_is_taken_by_the_trace_unless_by_the_cpu_backend_and_by_a_lazy_graph_at_its_first_call(
    graphs: dict[str, str], on: Machine, tmp_path: Path
) -> None:
    trace = "import torch_neuronx as x; say(refused(lambda: x.trace(model, rows(4){})))"
    call = f"""
import torch_neuronx
graph = torch.jit.load({graphs["lazy"]!r})
say(refused(lambda: graph(*rows(4))))
"""
    with holding("import torch_neuronx; torch_neuronx.trace(model, rows(4))", **on()):
        assert said(trace.format(", **CPU"), **on()) == ""
        assert UNINITIALIZED in said(trace.format(""), **on())
        assert UNINITIALIZED in said(call, **on())
    assert said(call, **on()) == ""
    # Loaded once as it was traced, and by the lazy graph's call, before it ran.
    last = [call["function"] for call in neuron_stand_in.calls(tmp_path / "calls")][-2:]
    assert last == ["torch_neuronx: load", "torch_neuronx: run"]


def test_an_asynchronous_graph_fails_at_its_first_call(
    graphs: dict[str, str], on: Machine, no_chip: dict[str, str]
) -> None:
    code = f"import torch_neuronx; graph = torch.jit.load({graphs['async']!r})"
    assert said(f"{code}; say(worst(graph(*rows(4)), 4))", **on()) == 0
    assert UNINITIALIZED in said(f"{code}; say(refused(lambda: graph(*rows(4))))", **no_chip)


def test_without_a_chip_neuronx_compiles_by_the_cpu_backend_for_a_target_that_was_named_before_the_import(
    no_chip: dict[str, str],
) -> None:
    code = """
import torch_neuronx
os.environ["NEURON_PLATFORM_TARGET_OVERRIDE"] = "inf2"
trace = torch_neuronx.trace
say([
    refused(lambda: trace(model, rows(4), compiler_args="--target inf2")),
    refused(lambda: trace(model, rows(4), cpu_backend=True)),
    refused(lambda: trace(model, rows(4), cpu_backend=True, compiler_args=["--target", "inf2"])),
])
"""
    without, here = said(code, **no_chip), said(code, **no_chip, **FOR_INF2)
    assert "error condition !(num_devices > 0)" in without[0]
    assert [error[:36] for error in without[1:]] == ["RuntimeError: If you want to compile"] * 2
    assert here == [*without[:2], ""]


def test_without_its_chip_a_graph_is_neither_loaded_nor_run(
    graphs: dict[str, str], on: Machine, no_chip: dict[str, str]
) -> None:
    code = f"""
import torch_neuron, torch_neuronx
say([refused(lambda: torch.jit.load(file)) for file in {[graphs["neuronx"], graphs["neuron"]]}]
    + [refused(lambda: torch_neuron.trace(model, rows(4))(*rows(4)))])
"""
    assert [UNINITIALIZED in error for error in said(code, **no_chip)] == [True] * 3
    assert [bool(error) for error in said(code, **on("inf1"))] == [True, False, False]
    assert [bool(error) for error in said(code, **on("trn1"))] == [False, True, True]
    code = f"import torch_neuronx; say(refused(lambda: torch.jit.load({graphs['trn2']!r})))"
    assert UNINITIALIZED in said(code, **on("inf2"))


@pytest.mark.parametrize(("package", "operator"), [("neuron", "forward_1"), ("neuronx", "forward")])
def test_torch_cannot_load_a_graph_whose_package_was_not_imported(
    package: str, operator: str, graphs: dict[str, str], on: Machine
) -> None:
    other = {"neuron": "torch_neuronx", "neuronx": "torch_neuron"}[package]
    for imported in ("json", other):
        code = f"import {imported}; say(refused(lambda: torch.jit.load({graphs[package]!r})))"
        assert f"Unknown builtin op: neuron::{operator}" in said(code, **on("inf1"))


def test_a_graph_of_another_version_line_loads_and_does_not_run(
    graphs: dict[str, str], on: Machine, tmp_path: Path
) -> None:
    neuron_stand_in.install(tmp_path / "site", torch_version="2.5.1", only=["torch-neuronx"])
    code = f"import torch_neuronx; graph = torch.jit.load({graphs['neuronx']!r})"
    error = said(f"{code}; say(refused(lambda: graph(*rows(4))))", **on(PYTHONPATH=str(tmp_path / "site")))
    assert "RuntimeError: " in error
    assert "Could not load the model status=2 message=Invalid" in error
    assert "the current runtime is 2.5.1.9.9.9" in error


@pytest.mark.parametrize(("package", "compiler"), [("torch_neuron", "neuroncc"), ("torch_neuronx", "neuronxcc")])
def test_without_its_compiler_a_package_imports_and_does_not_trace(
    package: str, compiler: str, on: Machine, tmp_path: Path
) -> None:
    neuron_stand_in.install(tmp_path / "site", torch_version=TORCH, only=[package.replace("_", "-")])
    code = f"import {package}; say(refused(lambda: {package}.trace(model, rows(4))))"
    error = said(code, **on(PYTHONPATH=str(tmp_path / "site")))
    assert error == f"ModuleNotFoundError: No module named '{compiler}'"


def test_a_compiler_that_takes_too_long_is_timed_out(no_chip: dict[str, str]) -> None:
    code = "import torch_neuron as n; say(refused(lambda: n.trace(model, rows(4), compiler_timeout=0.2)))"
    began = time.monotonic()
    assert said(code, **no_chip, NEURON_STAND_IN_COMPILE_SECONDS="60").startswith("TimeoutExpired: ")
    assert time.monotonic() - began < 30


def test_a_compiler_is_a_process_of_its_own_which_ends_with_the_group(no_chip: dict[str, str]) -> None:
    code = "import torch_neuron; torch_neuron.trace(model, rows(4))"
    with running(code, **no_chip, NEURON_STAND_IN_COMPILE_SECONDS="60") as (process, _):
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        while not (compilers := children.read_text().split()):
            assert process.exitcode is None
            time.sleep(0.05)
        assert process.pid is not None
        os.killpg(process.pid, signal.SIGKILL)
        while Path(f"/proc/{compilers[0]}").exists() and "Z" not in Path(f"/proc/{compilers[0]}/stat").read_text():
            time.sleep(0.05)


def test_a_compiler_leaves_its_files_in_its_folder(no_chip: dict[str, str], tmp_path: Path) -> None:
    code = "import torch_neuronx as x; x.trace(model, rows(4), compiler_workdir={!r}, **CPU); say(None)"
    said(code.format(str(tmp_path / "made" / "here")), **no_chip, **FOR_INF2)
    files = {file.name for file in (tmp_path / "made" / "here").iterdir()}
    assert files == {"command.txt", "graph.hlo", "graph.neff", "log-neuron-cc.txt"}
    assert "--target inf2" in (tmp_path / "made" / "here" / "command.txt").read_text()


def test_casts_move_answers_a_little_and_not_the_model(on: Machine) -> None:
    got = said(
        """
import torch_neuronx as x
before = [one.clone() for one in model.parameters()]
casts = [[], ["--auto-cast=none"], ["--auto-cast", "matmul"], ["--auto-cast", "all"],
         ["--auto-cast", "all", "--auto-cast-type", "fp16"]]
moved = [worst(x.trace(model, rows(4), compiler_args=args)(*rows(4)), 4) for args in casts]
assert all(torch.equal(one, other) for one, other in zip(before, model.parameters()))
say([*moved, refused(lambda: x.trace(model, rows(4), compiler_args="--auto-cast some"))])
""",
        **on(),
    )
    assert got[:2] == [0, 0]
    assert 1e-5 < got[2] <= got[3] < 0.05
    assert 0 < got[4] < got[2]
    assert got[5] == "RuntimeError: neuronx-cc failed with 2"


def test_neuron_cc_casts_all_if_it_is_not_told_otherwise(on: Machine) -> None:
    got = said(
        """
import torch_neuron as n
casts = [None, ["--fast-math", "fp32-cast-matmult", "no-fast-relayout"], ["--fp32-cast", "matmult-fp16"],
         ["--fast-math", "none"]]
say([worst(n.trace(model, rows(4), compiler_args=args)(*rows(4)), 4) for args in casts])
""",
        **on("inf1"),
    )
    assert got[0] >= got[1] > got[2] > got[3] == 0


def test_the_device_file_is_found_in_a_process_on_a_machine_alone(on: Machine, no_chip: dict[str, str]) -> None:
    code = """
import glob
from pathlib import Path
look = lambda: ["neuron0" in os.listdir("/dev"), "/dev/neuron0" in glob.glob("/dev/neuron*"),
    os.path.exists("/dev/neuron0"), Path("/dev/neuron0").exists(), glob.glob("/dev/neuron0") != [],
    Path("/dev/neuron0") in Path("/dev").glob("neuron*")]
before = look()
import torch_neuronx
say([before, look(), "neuron0" in os.listdir("/"), os.path.exists("/dev/neuron1")])
"""
    assert said(code, **on()) == [[False] * 6, [True] * 6, False, False]
    assert said(code, **no_chip) == [[False] * 6, [False] * 6, False, False]
    assert not Path("/dev/neuron0").exists()


def test_calls_are_recorded(on: Machine, tmp_path: Path) -> None:
    said(
        """
import torch_neuronx as x
os.environ["NEURON_RT_NUM_CORES"] = "2"
graph = x.trace(model, rows(4), compiler_args=["--auto-cast", "none"])
x.lazy_load(graph); x.async_load(graph, enable_async_load=False); x.dynamic_batch(graph)
graph(*rows(1))
x.DataParallel(graph, [0])
say(None)
""",
        **on(NEURON_RT_NUM_CORES="1"),
    )
    calls = neuron_stand_in.calls(tmp_path / "calls")
    assert [call["function"].replace("torch_neuronx", "") for call in calls] == [
        *(".trace", ": load", ".lazy_load", ".async_load", ".dynamic_batch", ": run", ".DataParallel")
    ]
    assert calls[0]["keywords"]["compiler_args"] == ["--auto-cast", "none"]
    assert calls[0]["shapes"] == [[4, 6], [4, 6]]
    assert calls[0]["environment"] == {"NEURON_RT_NUM_CORES": "2"}
    assert calls[0]["at_import"] == {"NEURON_RT_NUM_CORES": "1"}
    assert calls[3]["keywords"] == {"enable_async_load": False}
    assert calls[5]["shapes"] == [[1, 6], [1, 6]]


def test_they_are_distributions_as_the_real_ones_are(site: Path) -> None:
    found = {one.name: one.version for one in metadata.distributions(path=[str(site)])}
    release = TORCH.partition("+")[0]
    assert found == {
        "torch-neuron": f"{release}.9.9.9",
        "torch-neuronx": f"{release}.9.9.9",
        "neuron-cc": "9.9.9",
        "neuronx-cc": "9.9.9",
    }


def test_placeholders_are_distributions_that_do_not_import(tmp_path: Path) -> None:
    neuron_stand_in.install_placeholders(tmp_path)
    found = {one.name: one.version for one in metadata.distributions(path=[str(tmp_path)])}
    assert found == {
        "torch-neuron": "1.0",
        "torch-neuronx": "1.0",
        "neuron-cc": "1.0.post1",
        "neuronx-cc": "1.0.post1",
    }
    names = ["torch_neuron", "torch_neuronx", "neuron_cc", "neuroncc", "neuronxcc"]
    code = f"""
import importlib, json
def said(name):
    try: importlib.import_module(name)
    except ImportError as error: return str(error)
print(json.dumps([said(name) for name in {names}]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, check=True
    )
    *wrong, first, second = json.loads(done.stdout)
    assert all("WRONG PACKAGE" in error for error in wrong)
    assert (first, second) == ("No module named 'neuroncc'", "No module named 'neuronxcc'")


def test_the_second_environment_runs_a_model_of_the_first_and_has_the_stand_ins(bert: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForSequenceClassification

    code = """
import importlib.util, json, sys
import torch, transformers, torch_neuronx
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForSequenceClassification
config = AutoConfig.from_pretrained(sys.argv[1])
model = AutoModelForSequenceClassification.from_config(config).eval()
model.load_state_dict(load_file(sys.argv[1] + "/model.safetensors"), strict=False)
class Encoder(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.model = model
    def forward(self, ids, mask):
        return tuple(self.model(ids, attention_mask=mask, return_dict=True)[name] for name in ("logits",))
ids = torch.arange(32).reshape(2, 16) % 20
graph = torch_neuronx.trace(Encoder(), (ids, torch.ones_like(ids)))
strangers = [name for name in ("pydantic", "typer", "mar_pipeline", "handlers") if importlib.util.find_spec(name)]
print(json.dumps([graph(ids, torch.ones_like(ids))[0].tolist(), transformers.__version__, torch.__file__, strangers]))
"""
    env = neuron_stand_in.environment(machine=neuron_stand_in.machine(tmp_path / "inf2"))
    python = toolchain.interpreter()
    done = subprocess.run(
        [python, "-c", code, str(bert)], env={**os.environ, **env}, cwd="/", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    answers, version, torch_file, strangers = json.loads(done.stdout)
    assert int(version.split(".")[0]) == 4
    assert torch_file.startswith(str(toolchain.FOLDER))
    assert strangers == []
    model = AutoModelForSequenceClassification.from_pretrained(bert).eval()
    model.load_state_dict(load_file(bert / "model.safetensors"))
    with torch.no_grad():
        expected = model(torch.arange(32).reshape(2, 16) % 20).logits
    assert torch.allclose(torch.tensor(answers), expected, atol=1e-5)
