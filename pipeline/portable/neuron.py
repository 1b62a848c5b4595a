"""Compiles models for Inferentia, and runs the compiled archives, in the environment that has the compiler.

It needs only Python 3.8, torch 1.13, transformers 4.25, or newer, and safetensors: mar_pipeline is not installed there.
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
from .protocol import Refused, as_message, end, message_of, send
from .tracing import encoder, example, traceable_masks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .protocol import Job, Report


def compile_lengths(job: Job, report: Report) -> dict[str, Any]:
    """Compile a model for each of the job's `lengths`, into model-LENGTH.pt in the folder `out`. Returns {"facts": the
    contents of graph.json}. Raises Refused if the model cannot be loaded or compiled.

    The job holds `chip` (a row of `host.chips`), `checkpoint` (a folder with config.json and safetensors of exactly the
    class `auto_class`), `task`, `per_token` (whether the outputs have a value for each token), `inputs` and `outputs`
    (names, in the graph's order), `batch`, `lengths`, `pad` (the id that fills a row), `dtype`, `attn_implementation`,
    `trust_remote_code`, `tolerance`, and for the compiler `args`, `timeout` (seconds or None), `workdir`,
    `cpu_backend`, `dynamic_batch`, `async_load`, `lazy_load`, `cores`. If the packages do not work, nothing is
    compiled, and the result is {"inspection": the result of `inspect`}.
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
        "vocabulary": job["vocabulary"],
        "batch": job["batch"],
        "lengths": job["lengths"],
        "dynamic_batch": job["dynamic_batch"],
        "cores": job["cores"],
        "tried": tried,
        "versions": {name: version(name) for name in ("torch", chip["distribution"], chip["compiler"])},
    }
    return {"facts": facts}


def _model(job: Job) -> Any:
    """The model, built from its config; its weights are read here, since older transformers cannot read every
    safetensors checkpoint."""
    import torch
    import transformers
    from safetensors.torch import load_file

    code = {"trust_remote_code": True} if job.get("trust_remote_code") else {}
    named = f"transformers {transformers.__version__} of {sys.executable}"
    try:
        config = transformers.AutoConfig.from_pretrained(job["checkpoint"], local_files_only=True, **code)
        # The compilers support eager attention best, which needs no kernels of its own.
        config._attn_implementation = job.get("attn_implementation") or "eager"
        model = getattr(transformers, job["auto_class"]).from_config(config, **code)
    except Exception as error:
        raise Refused(
            f"{named} cannot build this model: {message_of(error)}",
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
    # Every name of each parameter: before torch 2, named_parameters() gives only one of tied parameters.
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
            f"{named} builds another {type(model).__name__} than the checkpoint has: {odd[0]} is "
            f"{'missing' if lost else 'unknown to it'}{f', and {len(odd) - 1} more' if odd[1:] else ''}.",
            "The architecture's weights were renamed between the two versions of transformers.",
            f"Upgrade it there ({sys.executable} -m pip install -U transformers), as far as its torch allows.",
        )
    return model.eval()


def _compiled(eager: Any, inputs: tuple[Any, ...], job: Job, length: int) -> Any:
    """The compiled graph of a model for one length. Raises Refused if the compiler fails or takes too long."""
    package = importlib.import_module(job["chip"]["package"])
    workdir = Path(job["workdir"]) / str(length)
    workdir.mkdir(parents=True)
    words = {"compiler_args": job["args"], "compiler_workdir": str(workdir)}
    began = time.monotonic()
    try:
        if job["chip"]["name"] == "neuron":
            if job["timeout"]:
                words["compiler_timeout"] = job["timeout"]
            # With fallback, operations that the compiler does not support would silently run on the CPU.
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
            # Before saving: it is stored in the graph.
            getattr(package, name)(graph)
    return graph


@contextmanager
def _ended_after(seconds: float | None, length: int) -> Iterator[None]:
    """A context that ends this process and its compiler after `seconds`: torch_neuronx has no time-out."""
    if not seconds:
        yield
        return

    def too_late() -> None:
        send({"error": as_message(_too_slow(seconds, length), {})})
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
    message = message_of(error)
    if "num_devices > 0" in str(error) or "could not be initialized" in str(error):
        if device_files():
            return Refused(
                f"{job['chip']['package']} finds no free NeuronCore to compile for: {message}",
                "A core belongs to one process, and other processes have all of them: a server, or another build.",
                "End what uses the chip (`neuron-ls` shows it), and build again.",
            )
        return Refused(
            f"{job['chip']['package']} finds no NeuronCore here, and needs one with these settings: {message}",
            "hardware.cpu_backend is false.",
            "Leave hardware.cpu_backend out, or set it to true.",
        )
    other = "eager" if job.get("attn_implementation") == "sdpa" else "sdpa"
    return Refused(
        f"{job['chip']['package']} cannot compile this model for {length} tokens ({seconds:.0f} s): {message}",
        "The compiler does not support an operation of the architecture, or one of hardware.compiler_args.",
        f"Try handler.attn_implementation: {other}, a newer compiler there, or handler.hardware: cpu.",
    )


def _save(graph: Any, file: Path) -> None:
    import torch

    # Not torch.jit.save to the file: on a full disk, that crashes the process.
    small = BytesIO()
    torch.jit.save(graph, small)
    file.write_bytes(small.getvalue())


def _tried(file: Path, eager: Any, inputs: tuple[Any, ...], job: Job, length: int) -> bool:
    """Whether the saved graph runs on this machine; if not, the verification of the archive says why. Raises Refused if
    its outputs differ from the model's."""
    import torch

    try:
        got = torch.jit.load(str(file))(*inputs)  # type: ignore[no-untyped-call]
    except Exception:
        return False
    keep = inputs[1].bool()
    for index, (one, other) in enumerate(zip(got, eager(*inputs))):
        if job["per_token"] and one.shape[:2] == keep.shape:
            one, other = one[keep], other[keep]  # outputs at padded places mean nothing
        worst = float((one.float() - other.float()).abs().max()) if one.shape == other.shape else float("inf")
        if not worst <= job["tolerance"] * max(1.0, float(other.abs().max())):
            raise Refused(
                f"The compiled graph differs from the model by {worst:.2g} in output {index} for {length} tokens.",
                "The compiler casts to fewer bits, or gets an operation wrong.",
                "Leave casts out (hardware.auto_cast, and --auto-cast in hardware.compiler_args), or set "
                "verify.tolerance to what is good enough for this model.",
            )
    return True


def answer(job: Job, report: Report) -> dict[str, Any]:
    """The result of `emulator.answers`. If the archive's graphs do not run on this machine, {"unverified": the reason
    in a few words, "said": the handler's message}. Raises Refused if its handler does not load."""
    # The emulator needs yaml, the compiler does not.
    from . import emulator

    try:
        result: dict[str, Any] = emulator.answers(job, report)
    except (ImportError, RuntimeError, ValueError) as error:
        # While loading, handlers raise an error that says what the machine or the environment lacks.
        if "initialize" not in [frame.name for frame in traceback.extract_tb(error.__traceback__)]:
            raise
        if re.search(r"NeuronCore|torch-neuronx?\b", str(error)):
            busy = "no free NeuronCore" if "is free" in str(error) else "its graphs do not run here"
            return {"unverified": busy if device_files() else NO_CHIP, "said": str(error)}
        raise Refused(
            f"The archive's handler does not load in {sys.executable}: {error}",
            "A package of that environment is missing or damaged, or does not fit the others.",
            "Install what the message names there; `mar doctor` lists the versions of that environment.",
        ) from error
    return result


OPERATIONS = {"inspect": inspect, "compile": compile_lengths, "answer": answer}
