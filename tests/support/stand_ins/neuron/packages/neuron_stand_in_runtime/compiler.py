"""The compilers, pretended: a TorchScript graph of the CPU, with the casts that the command line asks for."""

from __future__ import annotations

import importlib
import os
import shlex
import subprocess
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import torch

TYPES = (torch.int64, torch.float32, torch.float16, torch.bfloat16)
"""That inputs may have."""

# Of tf32 float16 has the precision.
_CASTS = {"bf16": torch.bfloat16, "fp16": torch.float16, "tf32": torch.float16}

# What --fast-math and --fp32-cast of neuron-cc cast: what, and to which type. The real `none` casts matrix products to
# bfloat16 still, which this does not pretend.
_FAST_MATH = {
    "none": ("none", "bf16"),
    "all": ("all", "bf16"),
    "fp32-cast-all": ("all", "bf16"),
    "fp32-cast-all-fp16": ("all", "fp16"),
    "fp32-cast-matmult": ("matmul", "bf16"),
    "fp32-cast-matmult-bf16": ("matmul", "bf16"),
    "fp32-cast-matmult-fp16": ("matmul", "fp16"),
}


def words(args: Any) -> list[str]:
    """A compiler's arguments, given as one text or as a list."""
    return shlex.split(args) if isinstance(args, str) else [str(word) for word in args or []]


def options(args: list[str]) -> dict[str, str]:
    """The last value of each option, "" for one that has none."""
    found: dict[str, str] = {}
    name = ""
    for word in args:
        if word.startswith("-"):
            name, _, value = word.partition("=")
            found[name] = value
        elif name:
            found[name] = f"{found[name]} {word}".strip()
    return found


def casts(compiler: str, given: dict[str, str]) -> tuple[str, str]:
    """What to cast, "all", "matmul" or "none", and to what. Raises RuntimeError for a value that is none."""
    if compiler == "neuronx-cc":
        what, to = given.get("--auto-cast", "none"), given.get("--auto-cast-type", "bf16")
        what = "matmul" if what == "matmult" else what
    else:
        math = [word for word in given.get("--fast-math", "all").split() if "relayout" not in word]
        if "--fp32-cast" in given:
            math = [f"fp32-cast-{given['--fp32-cast']}"]
        what, to = _FAST_MATH.get(math[-1] if math else "all", ("", ""))
    if what not in ("all", "matmul", "none") or to not in _CASTS:
        print(f"{compiler}: error: invalid choice in {given}", file=sys.stderr)
        raise RuntimeError(f"{compiler} failed with 2")
    return what, to


def checked(example_inputs: Any) -> tuple[Any, ...]:
    """The example as a tuple. Raises RuntimeError unless it is one of tensors, of a type that the compilers take."""
    inputs = (example_inputs,) if isinstance(example_inputs, torch.Tensor) else example_inputs
    if not isinstance(inputs, (tuple, list)) or not all(isinstance(one, torch.Tensor) for one in inputs):
        kinds = ", ".join(type(one).__name__ for one in inputs)
        raise RuntimeError(f"Type '({kinds})' cannot be traced. Only Tensors and tuples of Tensors can be traced")
    for number, one in enumerate(inputs):
        if one.dtype not in TYPES:
            raise RuntimeError(f"Unsupported data type {one.dtype} at input tensor #{number}")
    return tuple(inputs)


def compiled(
    func: Any,
    inputs: tuple[Any, ...],
    *,
    compiler: str,
    module: str,
    args: list[str],
    workdir: Any,
    timeout: float | None = None,
    **trace: Any,
) -> tuple[bytes, int, str | None]:
    """A program; how many tensors the tuple that it returns has (0: it returns one tensor, and no tuple); and the type
    that its results are cast to.

    Raises ModuleNotFoundError without the compiler, subprocess.TimeoutExpired after `timeout` seconds, RuntimeError for
    a model that takes or returns other than tensors.
    """
    importlib.import_module(module)
    what, to = casts(compiler, options(args))
    with torch.no_grad():
        # Both refuse a dictionary, unless they are told strict=False, and whatever has no tensors in it.
        traced = torch.jit.trace(func, inputs, check_trace=False, **trace)
        out = traced(*inputs)
    tensors = out if isinstance(out, tuple) else (out,)
    if not all(isinstance(one, torch.Tensor) for one in tensors):
        kinds = ", ".join(type(one).__name__ for one in tensors)
        raise RuntimeError(f"Only tensors or tuples of tensors can be output from a graph, not ({kinds})")
    saved = BytesIO()
    torch.jit.save(traced, saved)
    if what != "none":
        saved = _cast(saved, what, _CASTS[to])
    command = [compiler, "compile", "graph.hlo", *args, "--output", "graph.neff"]
    _write(workdir, command, saved.getvalue())
    _wait(command, timeout)
    return saved.getvalue(), len(out) if isinstance(out, tuple) else 0, to if what == "all" else None


def _cast(program: BytesIO, what: str, to: Any) -> BytesIO:
    """The same program with weights of `to`'s precision: all, or the matrices alone."""
    program.seek(0)
    # A copy: the traced graph has the caller's own weights.
    copy = torch.jit.load(program)
    with torch.no_grad():
        for weight in [*copy.parameters(), *copy.buffers()]:
            if weight.dtype == torch.float32 and (what == "all" or weight.dim() > 1):
                weight.copy_(weight.to(to))
    saved = BytesIO()
    torch.jit.save(copy, saved)
    return saved


def rounded(tensor: Any, to: str | None) -> Any:
    """A result with `to`'s precision, in its own type."""
    return tensor if to is None or not tensor.is_floating_point() else tensor.to(_CASTS[to]).to(tensor.dtype)


def _write(workdir: Any, command: list[str], program: bytes) -> None:
    """What a compiler leaves in its folder."""
    if workdir is None:
        return
    folder = Path(workdir)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "command.txt").write_text(shlex.join(command) + "\n", encoding="utf-8")
    (folder / "graph.hlo").write_bytes(program)
    (folder / "graph.neff").write_bytes(program)
    (folder / "log-neuron-cc.txt").write_text("Compiler status PASS\n", encoding="utf-8")


def _wait(command: list[str], timeout: float | None) -> None:
    """Take as long as NEURON_STAND_IN_COMPILE_SECONDS says, in a process of its own, as the compilers are."""
    seconds = float(os.environ.get("NEURON_STAND_IN_COMPILE_SECONDS") or 0)
    if not seconds:
        return
    with subprocess.Popen([sys.executable, "-c", f"import time; time.sleep({seconds})", *command]) as process:
        try:
            process.wait(timeout)
        except BaseException:
            process.kill()
            raise
