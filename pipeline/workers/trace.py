"""TorchScript: a graph traced by torch.jit.trace without its weights, these in model.safetensors, which a server maps
and its workers share, and graph.json, which says how to call it and which weight belongs where.

An encoder's graph is called with the tensors that graph.json's `inputs` name, [batch, length] int64 each, and
returns the task's outputs. A decoder's is called with input_ids [batch, new], attention_mask [batch, past + new] and a
key and a value tensor for each layer, [batch, heads, past, head_dim]; it returns the last position's logits [batch, 1,
vocabulary] and the longer keys and values. With `past` = 0 that is the prefill.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..archive.records import write_repeatable
from ..errors import MarError, StageError, disk_is_full
from ..portable.tracing import encoder, traceable_masks
from ..tasks import TASKS
from . import probe
from .trace_decoder import trace_decoder

if TYPE_CHECKING:
    from ..portable.protocol import Report

GRAPH = "model.pt"
WEIGHTS = "model.safetensors"
FACTS = "graph.json"
FORMAT = 2
"""Of these three files together."""


def trace(job: dict[str, Any], report: Report) -> dict[str, Any]:
    """Trace the job's model, hold the trace against the model at shapes that it was not made with, and save it."""
    import torch

    from .loading import encoder_inputs, settle_padding, tokenizer
    from .loading import model as load

    if job["device"] == "cuda" and not torch.cuda.is_available():
        raise StageError(
            "handler.hardware is gpu, and torch finds no GPU here: a trace is made on the device that it is for.",
            fix="Build on a machine with a GPU and a CUDA build of torch, or set handler.hardware: cpu.",
        )
    task = TASKS[job["task"]]
    report("loading the checkpoint", 0, None)
    model = load({**job, "merge": True}).to(job["device"])
    _name_modules(model)
    if task.generates:
        _refuse_constraints(model.generation_config)
    model.config.use_cache = task.generates
    words = tokenizer(job["checkpoint"], trust_remote_code=bool(job.get("trust_remote_code")))
    settle_padding(model, words)
    facts: dict[str, Any] = {
        "format": FORMAT,
        "task": job["task"],
        "inputs": ["input_ids", "attention_mask"] if task.generates else encoder_inputs(model, words),
        "outputs": list(job["outputs"]),
        "device": job["device"],
        "dtype": str(model.dtype).removeprefix("torch."),
        "max_length": job["max_length"],
        "torch": torch.__version__.split("+")[0],
        "cache": None,
    }
    with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings(), _refused():
        warnings.simplefilter("ignore")  # tracers warn of each Python branch; the check below is what counts
        report("tracing", 0, None)
        if task.generates:
            graph, facts["cache"] = trace_decoder(model, job, report)
        else:
            graph = _trace_encoder(model, facts, job, report)
        report("saving the trace", 0, None)
        facts["weights"] = _save(graph, Path(job["out"]))
    (Path(job["out"]) / FACTS).write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return facts


def _name_modules(model: Any) -> None:
    """Give classes out of a model's own code a module whose name can be read back from a graph: transformers makes them
    one of a digest, which may begin with a digit."""
    for kind in {type(module) for module in model.modules()}:
        name = ".".join(part if part.isidentifier() else f"_{part}" for part in kind.__module__.split("."))
        if name != kind.__module__:
            sys.modules[name] = sys.modules[kind.__module__]
            kind.__module__ = name


def _save(graph: Any, folder: Path) -> dict[str, str]:
    """Write WEIGHTS, and GRAPH with nothing in their places; the weight of each of the graph's parameters. Tied ones
    share theirs. The graph is of no use afterwards."""
    import torch
    from safetensors.torch import save_file

    owners: dict[Any, str] = {}
    weights: dict[str, Any] = {}
    names: dict[str, str] = {}
    for name, tensor in graph.state_dict(keep_vars=True).items():
        if not tensor.is_floating_point() or not tensor.numel():
            continue
        names[name] = owners.setdefault((tensor.data_ptr(), tensor.shape, tensor.stride()), name)
        if names[name] == name:
            weights[name] = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
    save_file(weights, folder / WEIGHTS)
    for name, tensor in graph.state_dict(keep_vars=True).items():
        if name in names:
            tensor.data = torch.zeros((), dtype=tensor.dtype, device=tensor.device).expand(tensor.shape)
    # Not torch's own way to a file: where the disk is full, that ends the process.
    small = BytesIO()
    torch.jit.save(graph, small)
    write_repeatable(small, folder / GRAPH)
    return names


# What generation_config.json may say that changes a greedy text, and only transformers' own loop heeds.
_CONSTRAINTS = (
    "no_repeat_ngram_size", "suppress_tokens", "begin_suppress_tokens", "bad_words_ids", "min_new_tokens", "min_length",
    "forced_bos_token_id", "forced_eos_token_id", "sequence_bias", "exponential_decay_length_penalty", "guidance_scale",
    "encoder_no_repeat_ngram_size", "encoder_repetition_penalty", "stop_strings", "watermarking_config", "dola_layers",
)  # fmt: skip


def _refuse_constraints(own: Any) -> None:
    """Raises StageError if the checkpoint's generation settings ask for what the traced loop has not."""
    neutral: tuple[Any, ...] = (None, 0, 1, 1.0, [], False)
    found = [name for name in _CONSTRAINTS if getattr(own, name, None) not in neutral]
    if found:
        raise StageError(
            f"generation_config.json asks for {', '.join(found)}, which a traced decoder's own loop does not do.",
            fix="Build it with save_mode: pretrained, or take that out of generation_config.json.",
        )


@contextmanager
def _refused() -> Iterator[None]:
    """Raises StageError for whatever torch says where a model cannot be traced, or its trace not run or saved."""
    try:
        yield
    except (MarError, OSError):
        raise
    except Exception as error:
        if disk_is_full(error):
            raise
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        # Of a trace that fails the last line says how, below where.
        said = lines[-1] if lines[-1].startswith("RuntimeError: ") else lines[0]
        raise StageError(
            f"The model cannot be traced: {said.removeprefix('RuntimeError: ').rstrip(':')}",
            "The architecture takes a path that depends on its input, or calls what a trace cannot hold.",
            "Build this model with save_mode: pretrained, or try handler.attn_implementation: eager.",
        ) from error


def _trace_encoder(model: Any, facts: dict[str, Any], job: dict[str, Any], report: Report) -> Any:
    import torch

    def example(batch: int, length: int, side: str) -> tuple[Any, ...]:
        ids, mask = probe.ids(model, batch, length, batch * 1000 + length), probe.mask(model, batch, length, side)
        # A segment of ones behind a segment of zeros, as pairs have.
        types = ((torch.arange(length) >= length // 2).long()[None] * mask.cpu()).to(model.device)
        return (ids, mask, types)[: len(facts["inputs"])]

    eager, longest = encoder(model, facts["inputs"], facts["outputs"]).eval(), job["max_length"]
    # Batch 2 and a padded row: a trace made at batch 1, or of full rows, can hold that as a constant.
    with traceable_masks():
        graph = torch.jit.trace(  # type: ignore[no-untyped-call]
            eager, example(2, min(12, longest), "right"), check_trace=False, strict=False
        )
    shapes = [
        *(shape for shape in probe.SHAPES if shape[1] <= longest),
        (1, longest, "right"),
        (2, longest, "left"),
    ]
    for number, (batch, length, side) in enumerate(shapes):
        report("checking the trace", number, len(shapes))
        inputs = example(batch, length, side)
        keep = inputs[1].bool()
        got, wanted = graph(*inputs), eager(*inputs)
        if wanted[0].dim() >= 2 and wanted[0].shape[:2] == keep.shape and TASKS[job["task"]].per_token:
            got, wanted = (
                [o[keep] for o in got],
                [o[keep] for o in wanted],
            )  # what stands at a padded place is nobody's
        probe.agree(got, wanted, f"batch {batch}, length {length}, {side} padding")
    return graph
