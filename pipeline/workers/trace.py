"""TorchScript: model.pt, a graph traced by torch.jit.trace without its weights; model.safetensors, the weights, which
a server's workers map and share; and graph.json, which describes the graph's inputs, outputs and weights.

An encoder's graph takes the tensors that graph.json lists in `inputs`, [batch, length] int64 each, and returns the
task's outputs. A decoder's takes input_ids [batch, new], attention_mask [batch, past + new] and a key and a value
tensor for each layer, [batch, heads, past, head_dim]; it returns the logits of the last position, [batch, 1,
vocabulary], and the extended keys and values. `past` = 0 is the prefill.
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
from ..errors import InputError, MarError, StageError, disk_is_full
from ..model.checkpoint import GENERATION
from ..model.lengths import scaled
from ..portable.tracing import encoder, own_padding, traceable_masks
from ..tasks import TASKS, Task
from . import probe
from .trace_decoder import trace_decoder

if TYPE_CHECKING:
    from ..portable.protocol import Report

GRAPH = "model.pt"
WEIGHTS = "model.safetensors"
FACTS = "graph.json"
FORMAT = 3
"""The version of the format of these three files."""


def trace(job: dict[str, Any], report: Report) -> dict[str, Any]:
    """Trace the job's model, compare the trace with the model at other shapes, and save it. Returns graph.json's
    content."""
    import torch

    from .loading import encoder_inputs, tokenizer, vocabulary
    from .loading import model as load

    if job["device"] == "cuda" and not torch.cuda.is_available():
        raise StageError(
            f"The graph is to run on a GPU, and torch {torch.__version__} finds none here.",
            "handler.hardware or deviceType is gpu, and a model is traced on the device that it will run on.",
            "Build on a machine with a GPU and a CUDA build of torch, or set handler.hardware and deviceType to cpu.",
        )
    task = TASKS[job["task"]]
    report("loading the checkpoint", 0, None)
    model = load({**job, "merge": True}).to(job["device"])
    _name_modules(model)
    _refuse_scaled(model.config.to_dict(), job["max_length"], writes=task.generates)
    if task.generates:
        _refuse_constraints(model.generation_config)
        _save_generation(model.generation_config, Path(job["checkpoint"]), Path(job["out"]))
    model.config.use_cache = task.generates
    words = tokenizer(job["checkpoint"], trust_remote_code=bool(job.get("trust_remote_code")))
    facts: dict[str, Any] = {
        "format": FORMAT,
        "task": job["task"],
        "inputs": ["input_ids", "attention_mask"] if task.generates else encoder_inputs(model, words),
        "outputs": list(job["outputs"]),
        "vocabulary": vocabulary(model),
        "device": job["device"],
        "dtype": str(model.dtype).removeprefix("torch."),
        "max_length": job["max_length"],
        "torch": torch.__version__.split("+")[0],
        "cache": None,
        "alone": False,
    }
    with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings(), _refused(model, words, task):
        warnings.simplefilter("ignore")  # tracers warn of each Python branch; the trace is checked below
        report("tracing", 0, None)
        if task.generates:
            graph, facts["cache"], facts["alone"] = trace_decoder(model, job, report)
        else:
            graph, facts["alone"] = _trace_encoder(model, facts, job, report)
        report("saving the trace", 0, None)
        facts["weights"] = _save(graph, Path(job["out"]))
    (Path(job["out"]) / FACTS).write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return facts


def _save_generation(own: Any, checkpoint: Path, out: Path) -> None:
    """Write generation_config.json if the checkpoint has none: what transformers takes from config.json, and from the
    architecture's own defaults, which a handler without transformers does not know."""
    if not (checkpoint / GENERATION).exists():
        (out / GENERATION).write_text(json.dumps(own.to_diff_dict(), indent=2, default=str) + "\n", encoding="utf-8")


def _name_modules(model: Any) -> None:
    """Give classes of a model's own code a module name that is valid in a graph: transformers names the module by a
    digest, which may begin with a digit."""
    for kind in {type(module) for module in model.modules()}:
        name = ".".join(part if part.isidentifier() else f"_{part}" for part in kind.__module__.split("."))
        if name != kind.__module__:
            sys.modules[name] = sys.modules[kind.__module__]
            kind.__module__ = name


def _save(graph: Any, folder: Path) -> dict[str, str]:
    """Write WEIGHTS, and GRAPH with empty parameters. Returns the name of the weight of each parameter; tied parameters
    share one. The graph cannot be used afterwards."""
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
    # Save to memory first: on a full disk, torch's file writer aborts the process.
    small = BytesIO()
    torch.jit.save(graph, small)
    write_repeatable(small, folder / GRAPH)
    return names


# Settings in generation_config.json that change greedy decoding and that only transformers' own loop implements, and
# the values with which they do not. None and an empty list never do.
_CONSTRAINTS: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(("no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "min_new_tokens", "min_length"), (0,)),
    **dict.fromkeys(("guidance_scale", "encoder_repetition_penalty"), (1,)),
    **dict.fromkeys(("penalty_alpha", "token_healing"), (0,)),
    **dict.fromkeys(
        ("suppress_tokens", "begin_suppress_tokens", "bad_words_ids", "forced_bos_token_id", "forced_eos_token_id",
         "sequence_bias", "exponential_decay_length_penalty", "stop_strings", "watermarking_config", "dola_layers",
         "force_words_ids", "constraints"), ()
    ),
}  # fmt: skip


def _refuse_constraints(own: Any) -> None:
    """Raises StageError if the checkpoint's generation settings need more than the traced loop implements."""
    asked = {name: getattr(own, name, None) for name in _CONSTRAINTS}
    unsupported = [name for name, value in asked.items() if value not in (None, [], *_CONSTRAINTS[name])]
    if unsupported:
        raise StageError(
            f"generation_config.json asks for {', '.join(unsupported)}, which a traced decoder does not implement.",
            fix="Build it with handler.save_mode: pretrained, or remove that from generation_config.json.",
        )


def _refuse_scaled(config: dict[str, Any], max_length: int, *, writes: bool) -> None:
    """Raises StageError if the model's rotary embeddings depend on the longest text in a way that a trace does not
    record: dynamic ones keep state, and a decoder's cache changes with longrope's."""
    kind, limit = scaled(config) or ("", max_length)
    if max_length > limit and (writes or kind == "dynamic"):
        raise StageError(
            f"The model scales its rotary embeddings by the length of a text ({kind}, beyond {limit} tokens), which a "
            "trace cannot record.",
            fix=f"Build it with handler.save_mode: pretrained, or set handler.max_length to {limit} or less.",
        )


@contextmanager
def _refused(model: Any, words: Any, task: Task) -> Iterator[None]:
    """Turn any error of torch while tracing, running or saving a trace into StageError."""
    try:
        yield
    except (MarError, OSError):
        raise
    except Exception as error:
        if disk_is_full(error):
            raise
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        # When a trace fails at run time, the last line has the reason, after the location.
        reason = lines[-1] if lines[-1].startswith("RuntimeError: ") else lines[0]
        _refuse_own_failure(model, words(*["Is it so?"] * len(task.fields), return_tensors="pt"), reason)
        raise StageError(
            f"The model cannot be traced: {reason.removeprefix('RuntimeError: ').rstrip(':')}",
            "The architecture takes a path that depends on its input, or calls what a trace cannot record.",
            probe.advice(model),
        ) from error


def _refuse_own_failure(model: Any, inputs: Any, reason: str) -> None:
    """Raises InputError if the model fails at an input for the same reason without a trace."""
    try:
        model(**{name: inputs[name].to(model.device) for name in ("input_ids", "attention_mask")})
    except Exception as error:
        if str(error).strip().splitlines()[:1] == [reason]:
            raise InputError(
                f"The original model cannot answer: {type(error).__name__}: {reason}",
                "transformers itself raises this, so an archive of this model could not answer either.",
                "Correct the model's config.json.",
            ) from None


def _trace_encoder(model: Any, facts: dict[str, Any], job: dict[str, Any], report: Report) -> tuple[Any, bool]:
    """The checked graph, and whether each text needs a run of its own."""
    import torch

    def example(batch: int, length: int, side: str) -> tuple[Any, ...]:
        ids, mask = probe.ids(model, batch, length, batch * 1000 + length), probe.mask(model, batch, length, side)
        # Token types of a pair: zeros, then ones.
        types = ((torch.arange(length) >= length // 2).long()[None] * mask.cpu()).to(model.device)
        return (ids.masked_fill(mask == 0, pad), mask, types)[: len(facts["inputs"])]

    def kept(outputs: Any, mask: Any) -> Any:
        each = outputs[0].dim() >= 2 and outputs[0].shape[:2] == mask.shape and TASKS[job["task"]].per_token
        return [one[mask.bool()] for one in outputs] if each else outputs  # outputs at padding are undefined

    pad = own_padding(model) or 0
    eager, longest = encoder(model, facts["inputs"], facts["outputs"]).eval(), job["max_length"]
    names = [
        *(shape for shape in probe.SHAPES if shape[1] <= longest),
        (1, longest, "right"),
        (2, longest, probe.BESIDE),
    ]
    examples = [(f"batch {one[0]}, length {one[1]}, {one[2]} padding", example(*one)) for one in names]
    # The longest first, before the short ones change the model's state, if it has one.
    wanted = [kept(eager(*inputs), inputs[1]) for _, inputs in reversed(examples)][::-1]
    beside, short = wanted[-1], min(probe.SHORT, longest)
    alone = eager(*(each[1:, :short] for each in examples[-1][1]))
    alone = kept(alone, examples[-1][1][1][1:, :short])
    # Batch 2 with a padded row: a trace of batch 1 or of full rows may record those as constants.
    with traceable_masks():
        graph = torch.jit.trace(  # type: ignore[no-untyped-call]
            eager, example(2, min(12, longest), "right"), check_trace=False, strict=False
        )
    for number, ((where, inputs), expected) in enumerate(zip(examples, wanted, strict=True)):
        report("checking the trace", number, len(examples))
        probe.agree(kept(graph(*inputs), inputs[1]), expected, where, probe.advice(model))
    return graph, probe.differ([one[-len(other) :] for one, other in zip(beside, alone, strict=True)], alone)
