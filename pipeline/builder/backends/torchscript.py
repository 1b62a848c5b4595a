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
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from ...archive import writer
from ...audit.tensors import is_trace_of_build
from ...errors import MarError, StageError, disk_is_full
from ...portable.neuron import encoder, traceable_masks
from ...workers.client import work

if TYPE_CHECKING:
    from ...files.tree import Entry
    from ...workers.worker import Report
    from ..stage import Build, Job

TOOLS = ("torch", "transformers", "tokenizers")
GRAPH = "model.pt"
WEIGHTS = "model.safetensors"
FACTS = "graph.json"
FORMAT = 2
"""Of these three files together."""

# Largest difference that reordered float32 sums made between a trace and eager, on every family tried, was 2e-5.
TOLERANCE = 1e-4

# Shapes that the check uses beside the model's longest: batch and length, with the side that is padded.
SHAPES = ((1, 5, "right"), (3, 1, "right"), (4, 40, "left"), (2, 17, "right"))


def params(build: Build) -> dict[str, Any]:
    from ..resolve import max_length

    handler = build.config.handler
    return {
        "format": FORMAT,
        "max_length": max_length(build),
        "hardware": handler.hardware,
        "dtype": handler.dtype,
        "attn_implementation": handler.attn_implementation,
    }


def serialize(job: Job) -> Iterable[Entry]:
    """Trace the model in a worker; what comes out is GRAPH, WEIGHTS and FACTS."""
    from ..resolve import load_settings, max_length

    build = job.build
    work(
        "trace",
        {
            **load_settings(build, job.lay_out("download")),
            "out": str(job.folder),
            "task": build.config.task.name,
            "outputs": build.config.task.outputs,
            "max_length": max_length(build),
            "device": "cuda" if build.config.handler.hardware == "gpu" else "cpu",
        },
        scratch=job.scratch,
        progress=job.progress,
    )
    return []


# From here on: worker side.


def trace(job: dict[str, Any], report: Report) -> dict[str, Any]:
    """Trace the job's model, hold the trace against the model at shapes that it was not made with, and save it."""
    import torch

    from ...workers.loading import encoder_inputs, settle_padding, tokenizer
    from ...workers.loading import model as load

    if job["device"] == "cuda" and not torch.cuda.is_available():
        raise StageError(
            "handler.hardware is gpu, and torch finds no GPU here: a trace is made on the device that it is for.",
            fix="Build on a machine with a GPU and a CUDA build of torch, or set handler.hardware: cpu.",
        )
    report("loading the checkpoint", 0, None)
    model = load({**job, "merge": True}).to(job["device"])
    _name_modules(model)
    if job["task"] == "text_generation":
        _refuse_constraints(model.generation_config)
    model.config.use_cache = job["task"] == "text_generation"
    words = tokenizer(job["checkpoint"], trust_remote_code=bool(job.get("trust_remote_code")))
    settle_padding(model, words)
    facts: dict[str, Any] = {
        "format": FORMAT,
        "task": job["task"],
        "inputs": ["input_ids", "attention_mask"] if job["task"] == "text_generation" else encoder_inputs(model, words),
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
        if job["task"] == "text_generation":
            graph, facts["cache"] = _trace_decoder(model, job, report)
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


def write_repeatable(saved: BinaryIO, target: Path) -> None:
    """Write a saved graph less the records that two builders' differ in: where in which file of whose folders each node
    was made, and a number made of that. torch.jit.load does without."""
    with zipfile.ZipFile(saved) as records:
        names = [name for name in records.namelist() if not is_trace_of_build(name)]
        members = [writer.Member.of(name, records.read(name)) for name in names]
    writer.write_zip(target, members, writer.EPOCH, lambda _: None, deflated=False)


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


def _ids(model: Any, batch: int, length: int, seed: int) -> Any:
    import torch

    generator = torch.Generator().manual_seed(seed)
    size = model.get_input_embeddings().num_embeddings
    return torch.randint(0, size, (batch, length), generator=generator).to(model.device)


def _mask(model: Any, batch: int, length: int, side: str) -> Any:
    """Row i has i columns fewer, cut from `side`; every row keeps one at least."""
    import torch

    mask = torch.ones(batch, length, dtype=torch.long)
    for row in range(batch):
        cut = min(row * max(1, length // 8), length - 1)
        if cut:
            mask[row, slice(0, cut) if side == "left" else slice(length - cut, None)] = 0
    return mask.to(model.device)


def _agree(got: Sequence[Any], wanted: Sequence[Any], where: str) -> None:
    import torch

    for index, (one, other) in enumerate(zip(got, wanted, strict=True)):
        if one.shape != other.shape:
            raise StageError(
                f"The trace gives an output of shape {list(one.shape)} at {where}, and the model {list(other.shape)}.",
                "The architecture takes a path that depends on its input, which a trace cannot hold.",
                "Build this model with save_mode: pretrained.",
            )
        difference = (one.float() - other.float()).abs()
        limit = TOLERANCE if one.dtype == torch.float32 else 2e-2
        worst = float(difference.max()) if difference.numel() else 0.0
        if not worst <= limit * max(1.0, float(other.float().abs().max()) if other.numel() else 1.0):
            raise StageError(
                f"The trace differs from the model by {worst:.2g} in output {index} at {where}.",
                "The architecture takes a path that depends on its input, which a trace cannot hold.",
                "Build this model with save_mode: pretrained, or try handler.attn_implementation: eager.",
            )


def _trace_encoder(model: Any, facts: dict[str, Any], job: dict[str, Any], report: Report) -> Any:
    import torch

    def example(batch: int, length: int, side: str) -> tuple[Any, ...]:
        ids, mask = _ids(model, batch, length, batch * 1000 + length), _mask(model, batch, length, side)
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
        *(shape for shape in SHAPES if shape[1] <= longest),
        (1, longest, "right"),
        (2, longest, "left"),
    ]
    for number, (batch, length, side) in enumerate(shapes):
        report("checking the trace", number, len(shapes))
        inputs = example(batch, length, side)
        keep = inputs[1].bool()
        got, wanted = graph(*inputs), eager(*inputs)
        if wanted[0].dim() >= 2 and wanted[0].shape[:2] == keep.shape and job["task"] != "seq_classification":
            got, wanted = (
                [o[keep] for o in got],
                [o[keep] for o in wanted],
            )  # what stands at a padded place is nobody's
        _agree(got, wanted, f"batch {batch}, length {length}, {side} padding")
    return graph


def _new_cache(past: Sequence[Any]) -> Any:
    from transformers import DynamicCache

    cache = DynamicCache()
    for layer in range(len(past) // 2):
        cache.update(past[2 * layer], past[2 * layer + 1], layer)
    return cache


def _flat(cache: Any) -> list[Any]:
    """Key and value of each layer, in order."""
    return [tensor for layer in cache.layers for tensor in (layer.keys, layer.values)]


def _trace_decoder(model: Any, job: dict[str, Any], report: Report) -> tuple[Any, dict[str, Any]]:
    import torch

    from ...workers.loading import takes

    extra = {"logits_to_keep": 1} if takes(model, "logits_to_keep") else {}
    positions = takes(model, "position_ids")

    class Decoder(torch.nn.Module):
        """The model over a flat cache; positions count the tokens that are no padding."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: Any, attention_mask: Any, *past: Any) -> Any:
            inputs = dict(extra)
            if positions:
                ids = (attention_mask.cumsum(-1) - 1).clamp(min=0)
                inputs["position_ids"] = ids[:, -input_ids.shape[1] :]
            out = self.model(
                input_ids=input_ids,
                attention_mask=attention_mask,
                past_key_values=_new_cache(past),
                use_cache=True,
                return_dict=True,
                **inputs,
            )
            return (out.logits[:, -1:], *_flat(out.past_key_values))

    # What the cache looks like is read off the model's own first step.
    ids = _ids(model, 2, 3, 1)
    first = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=True, return_dict=True)
    cache = getattr(first, "past_key_values", None)
    # Before version 5, transformers' encoders that decode pair it with one for an encoder that they have not.
    cache = getattr(cache, "self_attention_cache", cache)
    flat = _flat(cache) if hasattr(cache, "layers") else []
    shapes = {(tensor.shape[1], tensor.shape[3]) for tensor in flat if tensor is not None and tensor.dim() == 4}
    if len(shapes) != 1 or any(tensor is None or tensor.dim() != 4 for tensor in flat):
        raise StageError(
            f"{type(model).__name__} keeps no plain key-value cache of one shape, which the traced loop needs.",
            fix="Build this model with save_mode: pretrained.",
        )
    ((heads, head_dim),) = shapes
    facts = {
        "layers": len(flat) // 2,
        "heads": heads,
        "head_dim": head_dim,
        "dtype": str(flat[0].dtype).removeprefix("torch."),
    }

    def example(batch: int, past: int, new: int) -> tuple[Any, ...]:
        mask = _mask(model, batch, past + new, "left")
        keys = (
            torch.randn(batch, heads, past, head_dim, generator=torch.Generator().manual_seed(index))
            for index in range(len(flat))
        )
        return (_ids(model, batch, new, past + new), mask, *(key.to(flat[0]) for key in keys))

    eager, longest = Decoder().eval(), job["max_length"]
    with traceable_masks():
        graph = torch.jit.trace(  # type: ignore[no-untyped-call]
            eager, example(2, 4, 3), check_trace=False, strict=False
        )
    shapes_to_check = [(1, 0, 5), (3, 0, 1), (4, 7, 1), (2, 9, 3), (2, longest - 1, 1), (2, 0, longest)]
    for number, (batch, past, new) in enumerate(shapes_to_check):
        report("checking the trace", number, len(shapes_to_check))
        if past + new <= longest:
            inputs = example(batch, past, new)
            _agree(graph(*inputs), eager(*inputs), f"batch {batch}, {past} tokens cached, {new} new")
    return graph, facts
