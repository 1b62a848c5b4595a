"""AWS Inferentia: a graph for each length, compiled in the environment of its compiler, and graph.json, which says how
to call them.

A graph is called with the tensors that graph.json's `inputs` name, [batch, length] int64 each, and returns the task's
outputs; batch and length are those that it was compiled for.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ...archive.records import write_repeatable
from ...errors import InputError, StageError
from ...host import toolchain
from ...host.chips import CHIPS, has_chip, option
from ...portable.graph import FACTS, FORMAT
from ...workers.client import work
from ..resolve import dtype, lengths, load_settings, refuse_quantized, tolerance

if TYPE_CHECKING:
    from ...config.build_config import BuildConfig
    from ...files.tree import Entry
    from ..build import Inputs, Job

TOOLS = ("transformers", "tokenizers")

# `hardware.auto_cast` in the words of Inf1's compiler, which casts all by default (neuron-cc's --fast-math).
_FAST_MATH = {"none": "none", "matmul": "fp32-cast-matmult", "all": "all"}


def params(inputs: Inputs) -> dict[str, Any]:
    """Raises InputError if the compiler is not there, or cannot take the weights."""
    config = inputs.config
    handler, hardware = config.handler, config.hardware
    refuse_quantized(inputs)
    return {
        "format": FORMAT,
        "hardware": handler.hardware,
        "batch": batch(config),
        "lengths": lengths(inputs),
        "dtype": dtype(inputs),
        "attn_implementation": handler.attn_implementation,
        "args": _args(config),
        "cpu_backend": _without_chip(config),
        "chip": has_chip(),
        "dynamic_batch": hardware.dynamic_batch,
        "async_load": hardware.async_load,
        "lazy_load": hardware.lazy_load,
        "cores": hardware.data_parallel,
        "toolchain": toolchain.tools(CHIPS[handler.hardware], hardware.python),
    }


def batch(config: BuildConfig) -> int:
    """Rows that a graph is compiled for: a worker's batch, or its part on each of the cores that it is spread over."""
    return int(config.frontend["batchSize"]) // config.hardware.data_parallel


def _without_chip(config: BuildConfig) -> bool:
    """Whether to compile by the CPU backend; Inf1's compiler never needs the chip."""
    setting = config.hardware.cpu_backend
    is_wanted = not has_chip() if setting is None else setting
    return is_wanted and config.handler.hardware == "neuronx"


def _args(config: BuildConfig) -> list[str]:
    """The compiler's command line, with the casts and the target machine that the settings name."""
    hardware, own = config.hardware, list(config.hardware.compiler_args or [])
    if config.handler.hardware == "neuron":
        is_set = option(own, "--fast-math") or option(own, "--fp32-cast")
        return own if is_set else ["--fast-math", _FAST_MATH[hardware.auto_cast], *own]
    more = [] if option(own, "--auto-cast") else ["--auto-cast", hardware.auto_cast]
    if hardware.auto_cast_type and not option(own, "--auto-cast-type"):
        more += ["--auto-cast-type", hardware.auto_cast_type]
    if not option(own, "--target"):
        more += ["--target", target(config)]
    return [*more, *own]


def target(config: BuildConfig) -> str:
    """The machines that neuronx compiles for."""
    hardware = config.hardware
    return option(hardware.compiler_args or [], "--target") or hardware.target or "inf2"


def environment(config: BuildConfig) -> dict[str, str]:
    """What has to be set before the package is imported: one core to try the graphs on, and what to compile for where
    there is no chip to ask."""
    env = {} if os.environ.get("NEURON_RT_VISIBLE_CORES") else {"NEURON_RT_NUM_CORES": "1"}
    return env | ({"NEURON_PLATFORM_TARGET_OVERRIDE": target(config)} if _without_chip(config) else {})


def serialize(job: Job) -> Iterable[Entry]:
    """Save the model as its task's class, here, and compile that there."""
    config, settings = job.config, job.params
    handler, hardware = config.handler, config.hardware
    chip = CHIPS[handler.hardware]
    if settings["dtype"] == "float16":
        raise InputError(
            "The checkpoint is in float16, which the compiler does not take.",
            fix="Set handler.dtype: float32 (and hardware.auto_cast: all for speed), or bfloat16.",
        )
    python = toolchain.started(hardware.python)
    saved, compiled = job.scratch / "saved", job.scratch / "compiled"
    saved.mkdir()
    compiled.mkdir()
    ask = {**load_settings(job.inputs, job.lay_out("download")), "dtype": settings["dtype"]}
    prepared = work(
        "prepare", {**ask, "out": str(saved)}, scratch=job.scratch, progress=job.progress, limits=job.limits
    )
    ask = {
        **prepared,
        **{name: settings[name] for name in ("batch", "lengths", "dtype", "args", "cpu_backend", "cores")},
        **{name: settings[name] for name in ("attn_implementation", "dynamic_batch", "async_load", "lazy_load")},
        "chip": asdict(chip),
        "checkpoint": str(saved),
        "auto_class": config.task.auto_class,
        "trust_remote_code": handler.trust_remote_code,
        "task": config.task.name,
        "per_token": config.task.per_token,
        "outputs": config.task.outputs,
        "tolerance": tolerance(job.inputs),
        "timeout": hardware.compiler_timeout,
        "workdir": str(job.scratch / "compiler"),
        "out": str(compiled),
    }
    try:
        done = work(
            "compile",
            ask,
            scratch=job.scratch,
            progress=job.progress,
            python=python,
            script=toolchain.WORKER,
            env=environment(config),
        )
    except StageError as error:
        raise _with_the_compilers_words(job, error) from None
    if "inspection" in done:
        wrong = toolchain.trouble(chip, python, done["inspection"])
        assert wrong is not None
        raise InputError(*wrong)
    for length in settings["lengths"]:
        with (compiled / f"model-{length}.pt").open("rb") as graph:
            write_repeatable(graph, job.folder / f"model-{length}.pt")
    (job.folder / FACTS).write_text(json.dumps(done["facts"], indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return []


_LARGEST = 1 << 20
"""Bytes up to which a file of a compiler that failed is kept: its logs, but not its work files."""


def _with_the_compilers_words(job: Job, error: StageError) -> StageError:
    """The error, with where the compiler's own logs are kept: in the cache, until it fails for this archive again."""
    kept = job.build.store.root / "compiler" / job.config.archive.name
    if kept.is_symlink():
        kept.unlink()
    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir(parents=True)
    printed = next(job.scratch.glob("compile-*/log.txt"), None)
    if printed:
        shutil.copyfile(printed, kept / "printed.txt")
    for file in (job.scratch / "compiler").rglob("*"):
        if file.is_file() and file.stat().st_size <= _LARGEST:
            name = "-".join(file.relative_to(job.scratch / "compiler").parts)
            shutil.copyfile(file, kept / name)
    return StageError(error.what, error.why, f"{error.fix} The compiler's own words: {kept}")
