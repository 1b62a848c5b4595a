"""What a config means for its checkpoint: settings are resolved, and contradictions refused."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import ROOT
from ..answers.tolerance import of_scores
from ..config import build_config
from ..errors import InputError
from ..host.chips import CHIPS
from ..model import adapter, values
from ..model.checkpoint import CONFIG, GENERATION, INDEX, WEIGHTS, architectures, positions, task_of, tensors
from ..model.checkpoint import dtype as dtype_of
from ..model.labels import HEADS, unnamed
from ..model.labels import head as head_of
from ..model.labels import labels as labels_of
from ..model.selection import ADAPTER, ADAPTER_CONFIG, ADAPTER_WEIGHTS

if TYPE_CHECKING:
    from .build import Inputs

# Where neither the config nor the model limits it: attention over longer texts costs more than most servers have.
DEFAULT_MAX_LENGTH = 512
SHORTEST = 4
"""The smallest max_length."""


def _config(inputs: Inputs) -> dict[str, Any]:
    """The checkpoint's config.json. Raises InputError if a value in it has an impossible type."""
    config = inputs.read_json("download", CONFIG)
    values.refuse_strange(config)
    return config


def is_adapter(inputs: Inputs) -> bool:
    """Whether the checkpoint is an adapter and its base model."""
    return any(entry.path.startswith(f"{ADAPTER}/") for entry in inputs.tree("download"))


def merging(inputs: Inputs) -> tuple[str, ...]:
    """The distributions whose version decides how an adapter is merged into its base model; empty without one."""
    return ("peft",) if is_adapter(inputs) else ()


def _adapter(inputs: Inputs) -> dict[str, Any]:
    """An adapter's own config; empty if the checkpoint is not an adapter."""
    return inputs.read_json("download", f"{ADAPTER}/{ADAPTER_CONFIG}")


def max_length(inputs: Inputs) -> int:
    """Tokens of the longest input, special ones counted. Raises InputError if the model takes fewer."""
    limit = positions(_config(inputs), inputs.read_json("download", "tokenizer_config.json"))
    setting = inputs.config.handler.longest
    if limit is not None and limit < SHORTEST:
        raise InputError(
            f"{inputs.config.model.name} takes {limit} tokens at most, too few for a text and its special tokens.",
            "This limit is model_max_length in its tokenizer_config.json, or positions in its config.json.",
            "Correct the number there.",
        )
    if setting is None:
        return min(limit or DEFAULT_MAX_LENGTH, DEFAULT_MAX_LENGTH)
    if limit is not None and setting > limit:
        raise InputError(
            f"handler.max_length is {setting}, and {inputs.config.model.name} takes {limit} tokens at most.",
            fix=f"Set handler.max_length to {limit} or less; longer texts are split into windows, or cut.",
        )
    return setting


def lengths(inputs: Inputs) -> list[int]:
    """Tokens of each of the lengths that are compiled, from the shortest to `max_length`."""
    setting, longest = inputs.config.handler.max_length, max_length(inputs)
    return list(setting) if isinstance(setting, list) else [longest]


def check_task(inputs: Inputs) -> None:
    """Raises InputError if the checkpoint was fine-tuned for another task, or no handler serves it."""
    config, task = _config(inputs), inputs.config.task
    if is_adapter(inputs):
        weights = inputs.find("download", f"{ADAPTER}/{ADAPTER_WEIGHTS}")
        adapter.refuse_strange(_adapter(inputs), tensors(weights, ADAPTER_WEIGHTS) if weights else {})
    trained = adapter.task_of(_adapter(inputs))
    own = trained or task_of(config)
    if own is not None and own != task and not inputs.config.handler.allow_untrained_head:
        name = "an adapter" if trained else f"a {', '.join(architectures(config))}: a model"
        raise InputError(
            f"{inputs.config.model.name} is {name} for {own.name}, not for {task.name}.",
            fix=f"Use --task {own.name} (handler.mode), or a model that was fine-tuned for {task.name}.",
        )
    if task.generates:
        # As in transformers, one file counts.
        file = GENERATION if inputs.find("download", GENERATION) else CONFIG
        settings = inputs.read_json("download", file)
        values.refuse_strange(settings, file, generates=True)
        values.refuse_unsupported(settings, file)
    if config.get("is_encoder_decoder"):
        raise InputError(
            f"{inputs.config.model.name} ({config.get('model_type')}) is an encoder-decoder: no handler serves it.",
            fix="Use an encoder for classification and question answering, or a decoder for text generation.",
        )


def labels(inputs: Inputs) -> dict[int, str] | None:
    """Index -> name of the task's labels, None where it has none. Raises InputError on a contradiction."""
    handler, task = inputs.config.handler, inputs.config.task
    if not task.labelled:
        return None
    names = handler.labels
    number = len(names) if names else handler.num_labels
    own = _own_labels(inputs, number)
    if number and number != len(own) and not handler.allow_untrained_head:
        key = "handler.labels" if names else "handler.num_labels"
        first = ", ".join(list(own.values())[:6]) + (", ..." if len(own) > 6 else "")
        raise InputError(
            f"{number} labels are asked for ({key}), and the checkpoint has {len(own)}: {first}.",
            fix=f"Leave it out to take the checkpoint's, or use {len(own)}.",
        )
    if names:
        return dict(names)
    return unnamed(number) if number and number != len(own) else own


def _own_labels(inputs: Inputs, number: int | None) -> dict[int, str]:
    """The checkpoint's labels: as config.json has them, if its head, or the one that came with an adapter, is of that
    size. If the size is not known before the head is loaded, `number` is assumed. Raises InputError if the two
    contradict each other and `number` does not decide."""
    config = _config(inputs)
    own = labels_of(config)
    weight, rows = _head(inputs) or ("", number)
    if rows in (None, len(own)):
        return own
    # transformers 5 takes num_labels if it differs from id2label.
    if is_adapter(inputs) or rows in (number, config.get("num_labels")):
        return unnamed(rows)
    if inputs.config.handler.allow_untrained_head:
        return own
    stated = config.get("id2label") or "num_labels" in config
    raise InputError(
        f"{inputs.config.model.name} has {len(own)} labels by its config.json, and a head for {rows} ({weight}).",
        "One of the two was edited, or belongs to another model."
        if stated
        else f"config.json names no labels; transformers then assumes {len(own)}.",
        f"Set handler.labels to the {rows} names (or handler.num_labels: {rows}), or correct id2label in config.json.",
    )


def _head(inputs: Inputs) -> tuple[str, int | None] | None:
    """The weight with a row for each label, and the number of its rows; None if it cannot be told from the files."""
    if is_adapter(inputs):
        file = inputs.find("download", f"{ADAPTER}/{ADAPTER_WEIGHTS}")
        return ("", adapter.labels(tensors(file, ADAPTER_WEIGHTS))) if file else None
    # Quantized weights are packed into other shapes.
    if values.quantization(_config(inputs)):
        return None
    places = inputs.read_json("download", INDEX).get("weight_map") or {}
    for name in sorted({WEIGHTS, *(places[weight] for weight in HEADS & places.keys())}):
        file = inputs.find("download", name)
        if file and (found := head_of(tensors(file, name))):
            return found
    return None


def refuse_quantized(inputs: Inputs) -> None:
    """Raises InputError if the weights are quantized in a form that a graph cannot hold. On a CPU, transformers turns
    FP8 and MXFP4 into plain weights."""
    method = values.quantization(_config(inputs))
    if method and method not in ("fp8", "finegrained_fp8", "mxfp4"):
        raise InputError(
            f"{inputs.config.model.name} is quantized ({method}), and a traced graph cannot hold such weights.",
            fix="Build it with handler.save_mode: pretrained on the CPU or a GPU, or use weights without quantization.",
        )


def tolerance(inputs: Inputs) -> float:
    """The largest allowed difference of a score from the original's (absolute)."""
    setting, hardware = inputs.config.verify.tolerance, inputs.config.handler.hardware
    casts = hardware in CHIPS and inputs.config.hardware.casts != "none"
    return setting if setting is not None else of_scores(dtype(inputs), hardware, casts=casts)


def dtype(inputs: Inputs) -> str:
    """The dtype of the weights that are served: the setting, or the checkpoint's own."""
    setting: str = inputs.config.handler.dtype
    return dtype_of(_config(inputs)) if setting == "auto" else setting


def packed_handler(inputs: Inputs) -> dict[str, Any]:
    """The `handler:` section that is packed."""
    return build_config.packed_handler(inputs.config, max_length=max_length(inputs))


def load_settings(inputs: Inputs, folder: Path) -> dict[str, Any]:
    """The part of a worker's job that says how to load the original model (`loading.model`)."""
    handler = inputs.config.handler
    own = labels(inputs)
    return {
        "checkpoint": str(folder),
        "auto_class": inputs.config.task.auto_class,
        "labels": own,
        "num_labels": len(own) if own else None,
        "allow_untrained_head": handler.allow_untrained_head,
        **({"trust_remote_code": True} if handler.trust_remote_code else {}),
        "attn_implementation": handler.attn_implementation,
        "dtype": handler.dtype,
    }


@lru_cache
def handler_sources() -> dict[str, Path]:
    """Every file of the `handlers` package that ships, by its path below it."""
    root = ROOT / "handlers"
    return {file.relative_to(root).as_posix(): file for file in sorted(root.rglob("*.py"))}
