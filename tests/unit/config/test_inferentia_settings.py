# ruff: noqa: E501 - the tables read as tables: a line is a case
"""Settings for AWS Inferentia: what they may be together, what follows from them, and which have no effect."""

from __future__ import annotations

from pathlib import Path

import pytest

from mar_pipeline.config import build_config
from mar_pipeline.config.build_config import BuildConfig, Overrides, load
from mar_pipeline.errors import InputError
from tests.support import ROOT

SEQ = "handler:\n  mode: sequence_classification\n  model_name: gpt2\n"
INF2, INF1 = (f"{SEQ}  hardware: {name}\n" for name in ("neuronx", "neuron"))
TEXT = "handler:\n  mode: text_generation\n  model_name: gpt2\n  hardware: {}\n"


def read(tmp_path: Path, text: str, *settings: str) -> BuildConfig:
    (tmp_path / "c.yaml").write_text(text)
    return load(tmp_path / "c.yaml", Overrides(settings=settings))


ONE_PROBLEM = {
    "a-writer-on-inf2": (TEXT.format("neuronx"), "c.yaml:4: handler.hardware: neuronx does not support text_generation: a compiled graph has one length"),
    "a-writer-on-inf1": (TEXT.format("neuron"), "c.yaml:4: handler.hardware: neuron does not support text_generation"),
    "two-batch-sizes": ("batchSize: 8\n" + INF2 + "  batch_size: 4\n", "c.yaml:6: handler.batch_size: 4 contradicts batchSize: 8; keep one of them"),
    "lengths-for-a-cpu": (SEQ + "  max_length: [64, 128]\n", "c.yaml:4: handler.max_length: a list of lengths is for Inferentia"),
    "no-lengths": (INF2 + "  max_length: []\n", "c.yaml:5: handler.max_length: is empty"),
    "a-length-twice": (INF2 + "  max_length: [64, 128, 64]\n", "c.yaml:5: handler.max_length: contains 64 twice"),
    "a-length-too-short": (INF2 + "  max_length: [2, 64]\n", "c.yaml:5: handler.max_length[0]: 2 is out of range: at least 4"),
    "a-length-in-words": (INF2 + "  max_length: [64, long]\n", 'c.yaml:5: handler.max_length[1]: expected a whole number, got "long"'),
    "a-stride-of-the-longest": ("handler:\n  mode: token_classification\n  model_name: a\n  hardware: neuronx\n  max_length: [32, 64]\n  stride: 64\n", "c.yaml:6: handler.stride: 64 must be less than max_length, 64"),
    "more-workers-than-cores": ("maxWorkers: 3\n" + INF2, "c.yaml:1: maxWorkers: 3 workers, each on its NeuronCore, are more than hardware.cores: 2, the smallest machine's"),
    "more-first-workers-than-cores": ("minWorkers: 5\n" + INF1, "c.yaml:1: minWorkers: 5 workers, each on its NeuronCore, are more than hardware.cores: 4"),
    "more-workers-than-the-cores-given": ("maxWorkers: 13\n" + INF2 + "hardware: {cores: 12}\n", "c.yaml:1: maxWorkers: 13 workers, each on its NeuronCore, are more than hardware.cores: 12"),
    "workers-of-two-cores": ("maxWorkers: 2\n" + INF2 + "hardware: {data_parallel: 2}\n", "c.yaml:1: maxWorkers: 2 workers, each on 2 NeuronCores, are more than hardware.cores: 2"),
    "an-uneven-batch": ("batchSize: 9\n" + INF2 + "hardware: {data_parallel: 2}\n", "c.yaml:6: hardware.data_parallel: a batch of 9 cannot be spread evenly over 2 NeuronCores"),
    "a-gpu": ("deviceType: gpu\n" + INF2, "c.yaml:1: deviceType: gpu contradicts handler.hardware: neuronx"),
    "gpus": ("deviceIds: [0]\n" + INF2, "c.yaml:1: deviceIds: chooses GPUs"),
    "half-precision": (INF2 + "  dtype: float16\n", "c.yaml:5: handler.dtype: the compiler does not take float16; set handler.dtype: bfloat16"),
    "flash-attention": (INF2 + "  attn_implementation: flash_attention_2\n", "c.yaml:5: handler.attn_implementation: flash_attention_2 "),
    "the-chip-in-the-section": (SEQ + "hardware: neuronx\n", "c.yaml:4: hardware: is a section with settings of the compiler; to choose where the model runs, set handler.hardware: neuronx"),
    "a-machine-that-is-none": (INF2 + "hardware: {target: inf1}\n", 'c.yaml:5: hardware.target: "inf1" is not one of inf2, trn1, trn1n, trn2 or trn3'),
    "a-target-for-inf1": (INF1 + "hardware: {target: inf2}\n", "c.yaml:5: hardware.target: is for handler.hardware: neuronx"),
    "a-backend-for-inf1": (INF1 + "hardware: {cpu_backend: true}\n", "c.yaml:5: hardware.cpu_backend: is for handler.hardware: neuronx"),
    "lazy-loading-for-inf1": (INF1 + "hardware: {lazy_load: true}\n", "c.yaml:5: hardware.lazy_load: is for handler.hardware: neuronx"),
    "a-cast-of-nothing": (INF2 + "hardware: {auto_cast_type: bf16}\n", "c.yaml:5: hardware.auto_cast_type: needs a cast; set hardware.auto_cast: matmul or all"),
    "arguments-without-their-end": (INF2 + "hardware: {compiler_args: '-O \"1'}\n", "c.yaml:5: hardware.compiler_args: is not a command line"),
    "a-section-misspelt": (INF2 + "hardware: {compiler_arg: x}\n", "c.yaml:5: hardware.compiler_arg: unknown key; did you mean hardware.compiler_args?"),
}  # fmt: skip


@pytest.mark.parametrize("case", ONE_PROBLEM)
def test_each_contradiction_is_one_line_at_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    text, start = ONE_PROBLEM[case]
    monkeypatch.chdir(tmp_path)
    Path("c.yaml").write_text(text)
    with pytest.raises(InputError) as caught:
        load(Path("c.yaml"))
    (line, *others) = str(caught.value).splitlines()
    assert line.startswith(start), line
    assert not others, others


@pytest.mark.parametrize(
    ("top", "handler"), [("batchSize: 4\n", ""), ("", "  batch_size: 4\n"), ("batchSize: 4\n", "  batch_size: 4\n")]
)
def test_the_batch_is_one_setting_by_either_name(tmp_path: Path, top: str, handler: str) -> None:
    found = read(tmp_path, top + INF2 + handler)
    assert found.frontend["batchSize"] == 4
    assert not found.notes


def test_of_the_batchs_two_names_the_one_on_the_command_line_counts(tmp_path: Path) -> None:
    for text, setting in (
        ("batchSize: 8\n" + INF2, "handler.batch_size=4"),
        (INF2 + "  batch_size: 8\n", "batchSize=4"),
    ):
        assert read(tmp_path, text, setting).frontend["batchSize"] == 4
    with pytest.raises(InputError, match="keep one of them"):
        read(tmp_path, INF2, "handler.batch_size=4", "batchSize=8")
    # On a CPU they are two, of which one has no effect.
    assert read(tmp_path, "batchSize: 8\n" + SEQ, "handler.batch_size=4").frontend["batchSize"] == 8


def test_an_interpreter_is_looked_for_beside_the_config_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    (tmp_path / "environment").mkdir()
    assert read(tmp_path, INF2 + "hardware: {python: environment}\n").hardware.python == str(tmp_path / "environment")
    assert read(tmp_path, INF2 + "hardware: {python: elsewhere}\n").hardware.python == "elsewhere"


def test_torchserve_is_told_of_a_cpu_since_it_knows_no_neuron_cores(tmp_path: Path) -> None:
    found = read(tmp_path, "maxWorkers: 2\n" + INF2)
    assert (found.frontend["deviceType"], found.frontend["maxWorkers"], found.handler.hardware) == ("cpu", 2, "neuronx")
    assert read(tmp_path, "deviceType: cpu\n" + INF1).handler.hardware == "neuron"


def test_lengths_are_sorted_and_the_longest_is_what_is_packed(tmp_path: Path) -> None:
    found = read(tmp_path, INF2 + "  max_length: [256, 64, 128]\n")
    assert found.handler.max_length == [64, 128, 256]
    packed = build_config.packed_handler(found, max_length=256)
    assert (packed["max_length"], packed["save_mode"], packed["hardware"]) == (256, "torchscript", "neuronx")


def test_compiler_arguments_are_a_text_or_a_list(tmp_path: Path) -> None:
    text = "hardware: {compiler_args: '--optlevel 1 \"-x y\"'}\n"
    assert read(tmp_path, INF2 + text).hardware.compiler_args == ["--optlevel", "1", "-x y"]
    assert read(tmp_path, INF2 + "hardware: {compiler_args: [--optlevel, '1']}\n").hardware.compiler_args == [
        "--optlevel",
        "1",
    ]


def test_what_a_compiled_graph_cannot_have_is_said_to_have_no_effect(tmp_path: Path) -> None:
    extra = "  save_mode: pretrained\n  BetterTransformer: true\n  captum_explanation: true\n  model_parallel: true\npt2:\n  compile: {enable: true}\n"
    found = read(tmp_path, INF2 + extra)
    named = {note.split(" has no effect")[0] for note in found.notes}
    assert named == {
        "handler.save_mode: pretrained",
        "handler.BetterTransformer",
        "handler.captum_explanation",
        "handler.model_parallel",
        "pt2.compile",
    }
    assert (found.pt2, found.handler.save_mode, found.handler.captum_explanation) == (None, "torchscript", False)


def test_how_to_compile_has_no_effect_on_a_cpu(tmp_path: Path) -> None:
    found = read(tmp_path, SEQ + "hardware: {target: trn1}\n")
    assert [note.split(":")[0] for note in found.notes] == ["The section hardware has no effect on a CPU"]


@pytest.mark.parametrize("name", ["inf1", "inf2"])
def test_the_examples_hold_what_they_say_and_nothing_without_effect(name: str) -> None:
    found = load(ROOT / "configs" / "inferentia" / f"{name}.yaml")
    assert found.handler.hardware == {"inf1": "neuron", "inf2": "neuronx"}[name]
    assert found.frontend["maxWorkers"] == found.hardware.cores
    assert not found.notes
