"""The worker for the Neuron compilers, which live in environments of their own: run there by this file's path.

    PYTHON pipeline/portable/neuron.py JOB.json

It needs what such an environment has and nothing of ours: Python 3.8, torch 1.13, transformers 4.25, or newer, and
safetensors. It speaks as `pipeline.workers.worker` does: JSON lines on standard output, {"progress": [what, done,
total]}, at last {"result": ...} or {"error": {code, what, why, fix, traceback}}.
"""

from __future__ import annotations

import sys

if __name__ == "__main__" and __file__.startswith(f"{sys.path[0]}/"):
    # Python looks in a script's own folder first, and ours has modules of the standard library's names.
    sys.path.pop(0)

import errno
import importlib
import importlib.util
import json
import os
import platform
import re
import signal
import stat
import subprocess
import threading
import time
import traceback
from contextlib import contextmanager, nullcontext
from importlib import metadata
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    Report = Callable[[str, int, int | None], None]
    Job = dict[str, Any]

PACKAGES = {
    # import name: distribution, compiler's distribution, compiler's import name
    "torch_neuron": ("torch-neuron", "neuron-cc", "neuroncc"),
    "torch_neuronx": ("torch-neuronx", "neuronx-cc", "neuronxcc"),
}

FACTS = "graph.json"
"""The file that says of an archive's graphs how to call them."""
FORMAT = 1
"""Of it and the graphs."""

NO_CHIP = "no NeuronCore"


class Refused(Exception):
    """An expected error: `what` failed, `why` that usually happens, and how to `fix` it."""

    def __init__(self, what: str, why: str = "", fix: str = "") -> None:
        super().__init__(what)
        self.what, self.why, self.fix = what, why, fix


def device_files() -> list[str]:
    """The Neuron driver's files, one a chip."""
    # Not a pattern of names: other files of the driver's are of no chip.
    names = os.listdir("/dev")  # noqa: PTH208
    return sorted(f"/dev/{name}" for name in names if name[:6] == "neuron" and name[6:].isdigit())


def version(distribution: str) -> str | None:
    """The installed version of a distribution."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def inspect(job: Job, report: Report) -> dict[str, Any]:
    """What this interpreter has of a Neuron package: {"python", "torch", "transformers": versions, "package" and
    "compiler": {"version", "state": "ok", "absent", "placeholder" or "broken", "error": what its import says}}.

    The packages of these names on the package index are placeholders, so the metadata prove nothing: it is imported.
    """
    distribution, compiler, module = PACKAGES[job["package"]]
    report(f"importing {job['package']}", 0, None)
    return {
        "python": platform.python_version(),
        "torch": version("torch"),
        "transformers": version("transformers"),
        "package": _inspected(distribution, job["package"], "trace"),
        "compiler": _inspected(compiler, module, ""),
    }


def _inspected(distribution: str, module: str, function: str) -> dict[str, Any]:
    found: dict[str, Any] = {"version": version(distribution), "state": "ok", "error": ""}
    try:
        imported = importlib.import_module(module)
        if function and not callable(getattr(imported, function, None)):
            found["state"] = "placeholder"
    except ModuleNotFoundError as error:
        # A wheel without its module is the compiler's placeholder.
        missing = error.name == module
        found["state"] = ("placeholder" if found["version"] else "absent") if missing else "broken"
        found["error"] = str(error)
    except Exception as error:  # what a package's import raises can be anything
        found["state"] = "placeholder" if "WRONG PACKAGE" in str(error) else "broken"
        found["error"] = _said(error)
    return found


def whole(inspection: Mapping[str, Any]) -> bool:
    """Whether nothing is wrong with what `inspect` found. A Neuron package's version begins with its torch's."""
    package, compiler = inspection["package"], inspection["compiler"]
    if not package["state"] == compiler["state"] == "ok" or None in (inspection["torch"], package["version"]):
        return False
    return bool(inspection["torch"].split(".")[:2] == package["version"].split(".")[:2])


def _said(error: BaseException) -> str:
    """The line of an error that says what is wrong: the first, or where the last is an error's own, below where it came
    from, that. What knows a model may list all that it knows, so it is cut."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    named = re.match(r"(\w+Error): ", lines[-1])
    return lines[-1][named.end() :][:200] if named else lines[0][:200]


def compile_lengths(job: Job, report: Report) -> dict[str, Any]:
    """Compile a model for each of the job's `lengths`, into model-LENGTH.pt in the folder `out`: {"facts": FACTS}.

    The job holds `package`, `checkpoint` (a folder with config.json and safetensors of exactly the class `auto_class`),
    `task`, `inputs` and `outputs` (names, in the graph's order), `batch`, `lengths`, `pad` (the id that fills a row),
    `dtype`, `attn_implementation`, `trust_remote_code`, `tolerance`, and for the compiler `args`, `timeout` (seconds or
    None), `workdir`, `cpu_backend`, `dynamic_batch`, `async_load`, `lazy_load`, `cores`. If the packages are not as
    they should be, nothing is compiled: {"inspection": what `inspect` says}.
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
    distribution, compiler, _ = PACKAGES[job["package"]]
    facts = {
        "format": FORMAT,
        "task": job["task"],
        "device": job["package"][len("torch_") :],
        "inputs": job["inputs"],
        "outputs": job["outputs"],
        "batch": job["batch"],
        "lengths": job["lengths"],
        "dynamic_batch": job["dynamic_batch"],
        "cores": job["cores"],
        "tried": tried,
        "versions": {name: version(name) for name in ("torch", distribution, compiler)},
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
            f"{named} cannot make this model: {_said(error)}",
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


def encoder(model: Any, inputs: list[str], outputs: list[str]) -> Any:
    """A module that takes tensors by position and gives a tuple of tensors: what a graph can have."""
    import torch

    class Encoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *tensors: Any) -> Any:
            out = self.model(**dict(zip(inputs, tensors)), return_dict=True)
            return tuple(out[name] for name in outputs)

    return Encoder()


def example(job: Job, length: int, model: Any) -> tuple[Any, ...]:
    """A full batch, int64 [batch, length] each; row i is padded by i eighths of it on the right, and each keeps one."""
    import torch

    batch = job["batch"]
    generator = torch.Generator().manual_seed(length)
    ids = torch.randint(0, model.get_input_embeddings().num_embeddings, (batch, length), generator=generator)
    mask = torch.ones(batch, length, dtype=torch.long)
    for row in range(batch):
        kept = max(1, length - row % 8 * max(1, length // 8))
        mask[row, kept:] = 0
        ids[row, :kept][ids[row, :kept] == job["pad"]] = (job["pad"] + 1) % 2
        ids[row, kept:] = job["pad"]
    types = (torch.arange(length) >= length // 2).long()[None] * mask
    given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
    return tuple(given[name] for name in job["inputs"])


@contextmanager
def traceable_masks() -> Iterator[None]:
    """Have transformers make its masks of index tensors that broadcast, as version 5 does by itself: some before map
    their functions over every index by torch.vmap, which torch.jit.trace cannot follow; the oldest have no such module.
    """
    try:
        from transformers import masking_utils as masks
    except ImportError:
        yield
        return

    def over_indices(function: Any, bh_indices: bool = True) -> Any:
        def mask(batch: Any, head: Any, query: Any, key: Any) -> Any:
            if not bh_indices:
                return function(batch, head, query[:, None], key).expand(query.shape[0], key.shape[0])
            places = batch[:, None, None, None], head[:, None, None], query[:, None], key
            return function(*places).expand(batch.shape[0], head.shape[0], query.shape[0], key.shape[0])

        return mask

    changed: dict[str, Any] = {"_vmap_for_bhqkv": over_indices, "TransformGetItemToIndex": nullcontext}
    known = {name: value for name, value in changed.items() if hasattr(masks, name)}
    with patch.multiple(masks, **known) if "_vmap_for_bhqkv" in known else nullcontext():
        yield


def _compiled(eager: Any, inputs: tuple[Any, ...], job: Job, length: int) -> Any:
    """What the package makes of a model for one length. Raises Refused for what the compiler says."""
    package = importlib.import_module(job["package"])
    workdir = Path(job["workdir"]) / str(length)
    workdir.mkdir(parents=True)
    words = {"compiler_args": job["args"], "compiler_workdir": str(workdir)}
    began = time.monotonic()
    try:
        if job["package"] == "torch_neuron":
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

    def end() -> None:
        _say({"error": _told(_too_slow(seconds, length), {})})
        _end()

    watch = threading.Timer(seconds, end)
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
    said = _said(error)
    if "num_devices > 0" in str(error) or "could not be initialized" in str(error):
        if device_files():
            return Refused(
                f"{job['package']} finds no free NeuronCore to compile for: {said}",
                "A core belongs to one process, and others have all of them: a server, or another build.",
                "End what uses the chip (`neuron-ls` shows it), and build again.",
            )
        return Refused(
            f"{job['package']} finds no NeuronCore here, and was told to compile as if there were one: {said}",
            "hardware.cpu_backend is false.",
            "Leave hardware.cpu_backend out, or set it to true.",
        )
    return Refused(
        f"{job['package']} cannot compile this model for {length} tokens ({seconds:.0f} s): {said}",
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
        if job["task"] != "seq_classification" and one.shape[:2] == keep.shape:
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
    """What an archive answers here: `answers` of emulator.py, which lies beside this file. If its graphs do not run
    here, {"unverified": why in a few words, "said": why in the handler's}."""
    spec = importlib.util.spec_from_file_location("mar_local", Path(__file__).with_name("emulator.py"))
    assert spec is not None
    assert spec.loader is not None
    local = importlib.util.module_from_spec(spec)
    sys.modules["mar_local"] = local
    spec.loader.exec_module(local)
    try:
        found: dict[str, Any] = local.answers(job, report)
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

_out: Any = None
_one_at_a_time = threading.Lock()


def _say(message: dict[str, Any]) -> None:
    with _one_at_a_time:
        print(json.dumps(message), file=_out, flush=True)


def _end_with_the_parent() -> None:
    # A pipe that nobody writes to ends when the parent does, however it does.
    sys.stdin.buffer.read()
    _end()


def _end() -> None:
    """End this process and the compilers that it started, which are of its group if it leads one."""
    if os.getpgid(0) == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def _told(error: BaseException, job: Job) -> dict[str, Any]:
    """An error as the parent reads it."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        error = Refused(
            f"The disk is full: {job['op']} could not write to {job.get('out') or Path.cwd()}.",
            "All that is made goes into the cache first.",
            "Free some space (`mar cache gc --max-size 5GB`), or use --cache for another disk; then try again.",
        )
    if isinstance(error, Refused):
        return {"code": 3, "what": error.what, "why": error.why, "fix": error.fix}
    return {"code": 1, "traceback": "".join(traceback.format_exception(type(error), error, error.__traceback__))}


def main() -> None:
    """Do the job whose file is the first argument."""
    global _out
    # Libraries print; the lines that the parent reads must be ours alone.
    _out = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    if stat.S_ISFIFO(os.fstat(0).st_mode):
        threading.Thread(target=_end_with_the_parent, daemon=True).start()

    def report(what: str, done: int = 0, total: int | None = None) -> None:
        _say({"progress": [what, done, total]})

    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    try:
        _say({"result": OPERATIONS[job["op"]](job, report)})
    except BaseException as error:
        _say({"error": _told(error, job)})
    # Not sys.exit: tearing torch down takes time, and its threads can hang.
    os._exit(0)


if __name__ == "__main__":
    main()
