"""Compiles for Inferentia, and answers by what was compiled, in the environment that has the compiler.

It needs what such an environment has and nothing of ours: Python 3.8, torch 1.13, transformers 4.25, or newer, and
safetensors.
"""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import threading
import time
import traceback
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .graph import FORMAT, NO_CHIP
from .inspection import device_files, inspect, version, whole
from .protocol import Refused, as_message, end, message_of, say
from .tracing import encoder, example, traceable_masks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .protocol import Job, Report


def compile_lengths(job: Job, report: Report) -> dict[str, Any]:
    """Compile a model for each of the job's `lengths`, into model-LENGTH.pt in the folder `out`: {"facts": FACTS}.

    The job holds `chip` (a row of `host.chips`), `checkpoint` (a folder with config.json and safetensors of exactly the
    class `auto_class`), `task`, `per_token` (whether it has an answer for each), `inputs` and `outputs` (names, in the
    graph's order), `batch`, `lengths`, `pad` (the id that fills a row), `dtype`, `attn_implementation`,
    `trust_remote_code`, `tolerance`, and for the compiler `args`, `timeout` (seconds or None), `workdir`,
    `cpu_backend`, `dynamic_batch`, `async_load`, `lazy_load`, `cores`. If the packages are not as they should be,
    nothing is compiled: {"inspection": what `inspect` says}.
    """
    inspection = inspect(job, report)
    if not whole(inspection):
        return {"inspection": inspection}
    import torch

    report("loading the model", 0, None)
    model = _model(job)
    eager = encoder(model, job["inputs"], job["outputs"]).eval()
    tried = True
    with torch.no_grad(), traceable_masks():
        for number, length in enumerate(job["lengths"]):
            report(f"compiling for {length} tokens", number, len(job["lengths"]))
            inputs = example(job, length, model)
            graph = _compiled(eager, inputs, job, length)
            file = Path(job["out"]) / f"model-{length}.pt"
            _save(graph, file)
            del graph
            report(f"trying {length} tokens", number, len(job["lengths"]))
            tried = _tried(file, eager, inputs, job, length) and tried
    chip = job["chip"]
    facts = {
        "format": FORMAT,
        "task": job["task"],
        "device": chip["name"],
        "inputs": job["inputs"],
        "outputs": job["outputs"],
        "batch": job["batch"],
        "lengths": job["lengths"],
        "dynamic_batch": job["dynamic_batch"],
        "cores": job["cores"],
        "tried": tried,
        "versions": {name: version(name) for name in ("torch", chip["distribution"], chip["compiler"])},
    }
    return {"facts": facts}


def _model(job: Job) -> Any:
    """The model, its weights read from safetensors: older transformers do not know every form of them."""
    import torch
    import transformers
    from safetensors.torch import load_file

    code = {"trust_remote_code": True} if job.get("trust_remote_code") else {}
    named = f"transformers {transformers.__version__} of {sys.executable}"
    try:
        config = transformers.AutoConfig.from_pretrained(job["checkpoint"], local_files_only=True, **code)
        # The forms of attention that need no kernels of their own are what the compilers know best.
        config._attn_implementation = job.get("attn_implementation") or "eager"
        model = getattr(transformers, job["auto_class"]).from_config(config, **code)
    except Exception as error:
        raise Refused(
            f"{named} cannot make this model: {message_of(error)}",
            "Its architecture may be newer than that transformers.",
            f"Upgrade it there ({sys.executable} -m pip install -U transformers), as far as its torch allows.",
        ) from None
    weights: dict[str, Any] = {}
    for file in sorted(Path(job["checkpoint"]).glob("*.safetensors")):
        weights.update(load_file(file))
    model = model.to(getattr(torch, job["dtype"]))
    buffers = {name for name, _ in model.named_buffers()}
    missing, unexpected = model.load_state_dict(weights, strict=False)
    model.tie_weights()
    # Every name of each, which named_parameters() does not give before torch 2.
    known = {
        ".".join(part for part in (prefix, name) if part): parameter
        for prefix, module in model.named_modules()
        for name, parameter in module._parameters.items()
    }
    loaded = {id(parameter) for name, parameter in known.items() if name in weights}
    lost = [name for name in missing if name not in buffers and id(known.get(name)) not in loaded]
    odd = lost or [name for name in unexpected if not name.endswith(("position_ids", "token_type_ids"))]
    if odd:
        raise Refused(
            f"{named} makes another {type(model).__name__} than ours: {odd[0]} is "
            f"{'missing' if lost else 'unknown to it'}{f', and {len(odd) - 1} more' if odd[1:] else ''}.",
            "Between the two versions the architecture's weights were renamed.",
            f"Upgrade it there ({sys.executable} -m pip install -U transformers), as far as its torch allows.",
        )
    return model.eval()


def _compiled(eager: Any, inputs: tuple[Any, ...], job: Job, length: int) -> Any:
    """What the package makes of a model for one length. Raises Refused for what the compiler says."""
    package = importlib.import_module(job["chip"]["package"])
    workdir = Path(job["workdir"]) / str(length)
    workdir.mkdir(parents=True)
    words = {"compiler_args": job["args"], "compiler_workdir": str(workdir)}
    began = time.monotonic()
    try:
        if job["chip"]["name"] == "neuron":
            if job["timeout"]:
                words["compiler_timeout"] = job["timeout"]
            # What the compiler cannot do would run on the CPU, unseen: a graph for the chip that is none.
            return package.trace(eager, inputs, fallback=False, dynamic_batch_size=job["dynamic_batch"], **words)
        with _ended_after(job["timeout"], length):
            # Older releases have no cpu_backend.
            extra = {"cpu_backend": True} if job["cpu_backend"] else {}
            graph = package.trace(eager, inputs, **words, **extra)
    except subprocess.TimeoutExpired:
        raise _too_slow(job["timeout"], length) from None
    except (Refused, OSError, MemoryError):
        raise
    except Exception as error:
        raise _failed(error, job, length, time.monotonic() - began) from error
    if job["dynamic_batch"]:
        graph = package.dynamic_batch(graph)
    for name in ("async_load", "lazy_load"):
        if job[name]:
            # Before it is saved: the graph keeps it.
            getattr(package, name)(graph)
    return graph


@contextmanager
def _ended_after(seconds: float | None, length: int) -> Iterator[None]:
    """End this process, with the compiler that it started, if it takes longer: torch_neuronx has no time-out."""
    if not seconds:
        yield
        return

    def too_late() -> None:
        say({"error": as_message(_too_slow(seconds, length), {})})
        end()

    watch = threading.Timer(seconds, too_late)
    watch.daemon = True
    watch.start()
    try:
        yield
    finally:
        watch.cancel()


def _too_slow(seconds: float, length: int) -> Refused:
    return Refused(
        f"The compiler took longer than {seconds:g} s for {length} tokens (hardware.compiler_timeout).",
        "A large model on a small machine takes hours and tens of gigabytes; the load of other compilers adds to it.",
        "Set hardware.compiler_timeout higher, or compile on a larger machine: none needs the chip.",
    )


def _failed(error: Exception, job: Job, length: int, seconds: float) -> Refused:
    said = message_of(error)
    if "num_devices > 0" in str(error) or "could not be initialized" in str(error):
        if device_files():
            return Refused(
                f"{job['chip']['package']} finds no free NeuronCore to compile for: {said}",
                "A core belongs to one process, and others have all of them: a server, or another build.",
                "End what uses the chip (`neuron-ls` shows it), and build again.",
            )
        return Refused(
            f"{job['chip']['package']} finds no NeuronCore here, and was told to compile as if there were one: {said}",
            "hardware.cpu_backend is false.",
            "Leave hardware.cpu_backend out, or set it to true.",
        )
    return Refused(
        f"{job['chip']['package']} cannot compile this model for {length} tokens ({seconds:.0f} s): {said}",
        "An operation of the architecture is not in the compiler, or one of hardware.compiler_args is not.",
        "Try handler.attn_implementation: sdpa, a newer compiler there, or handler.hardware: cpu.",
    )


def _save(graph: Any, file: Path) -> None:
    import torch

    # Not torch's own way to a file: where the disk is full, that ends the process.
    small = BytesIO()
    torch.jit.save(graph, small)
    file.write_bytes(small.getvalue())


def _tried(file: Path, eager: Any, inputs: tuple[Any, ...], job: Job, length: int) -> bool:
    """Whether the saved graph could be run here: why not is told when the archive is verified. Raises Refused if it
    answers otherwise than the model."""
    import torch

    try:
        got = torch.jit.load(str(file))(*inputs)  # type: ignore[no-untyped-call]
    except Exception:
        return False
    keep = inputs[1].bool()
    for index, (one, other) in enumerate(zip(got, eager(*inputs))):
        if job["per_token"] and one.shape[:2] == keep.shape:
            one, other = one[keep], other[keep]  # what stands at a padded place is nobody's
        worst = float((one.float() - other.float()).abs().max()) if one.shape == other.shape else float("inf")
        if not worst <= job["tolerance"] * max(1.0, float(other.abs().max())):
            raise Refused(
                f"The compiled graph differs from the model by {worst:.2g} in output {index} for {length} tokens.",
                "The compiler casts to fewer bits (hardware.auto_cast, compiler_args), or is wrong about an operation.",
                "Set hardware.auto_cast: none, or verify.tolerance to what is good enough for this model.",
            )
    return True


def answer(job: Job, report: Report) -> dict[str, Any]:
    """What an archive answers here, as `emulator.answers` has it. If its graphs do not run here, {"unverified": why in
    a few words, "said": why in the handler's}."""
    # It needs yaml, which nothing else here does.
    from . import emulator

    try:
        found: dict[str, Any] = emulator.answers(job, report)
    except (ImportError, RuntimeError, ValueError) as error:
        # At loading, handlers say in a sentence what a machine, or an environment, lacks.
        if "initialize" not in [frame.name for frame in traceback.extract_tb(error.__traceback__)]:
            raise
        if re.search(r"NeuronCore|torch-neuronx?\b", str(error)):
            busy = "no free NeuronCore" if "is free" in str(error) else "its graphs do not run here"
            return {"unverified": busy if device_files() else NO_CHIP, "said": str(error)}
        raise Refused(f"The archive's handler does not load in {sys.executable}: {error}") from error
    return found


OPERATIONS = {"inspect": inspect, "compile": compile_lengths, "answer": answer}
