"""What a config means for the checkpoint that was found: settings resolved, contradictions refused."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import ROOT
from ..errors import InputError
from ..host.toolchain import CHIPS
from ..model import adapter
from ..model.checkpoint import labels as labels_of
from ..model.checkpoint import positions, task_of, tensors
from ..model.selection import ADAPTER, ADAPTER_CONFIG, ADAPTER_WEIGHTS

if TYPE_CHECKING:
    from .build import Build

# Where neither the config nor the model limits it: attention over longer texts costs more than most servers have.
DEFAULT_MAX_LENGTH = 512


def _config(build: Build) -> dict[str, Any]:
    return build.read_json("download", "config.json")


def is_adapter(build: Build) -> bool:
    """Whether the checkpoint is an adapter and its base model."""
    return any(entry.path.startswith(f"{ADAPTER}/") for entry in build.trees["download"])


def merging(build: Build) -> tuple[str, ...]:
    """The distributions whose version decides what an adapter and its base model make together."""
    return ("peft",) if is_adapter(build) else ()


def _adapter(build: Build) -> dict[str, Any]:
    """An adapter's own config; empty if the checkpoint is none."""
    return build.read_json("download", f"{ADAPTER}/{ADAPTER_CONFIG}")


def max_length(build: Build) -> int:
    """Tokens of the longest input, special ones counted. Raises InputError if the model takes fewer."""
    limit = positions(_config(build), build.read_json("download", "tokenizer_config.json"))
    asked = build.config.handler.longest
    if asked is None:
        return min(limit or DEFAULT_MAX_LENGTH, DEFAULT_MAX_LENGTH)
    if limit is not None and asked > limit:
        raise InputError(
            f"handler.max_length is {asked}, and {build.config.model.name} takes {limit} tokens at most.",
            fix=f"Set handler.max_length to {limit} or less; longer texts are split into windows, or cut.",
        )
    return asked


def lengths(build: Build) -> list[int]:
    """Tokens of each of the lengths that are compiled, from the shortest to `max_length`."""
    asked = build.config.handler.max_length
    longest = max_length(build)
    return list(asked) if isinstance(asked, list) else [longest]


def check_task(build: Build) -> None:
    """Raises InputError if the checkpoint is fine-tuned for another task."""
    config, task = _config(build), build.config.task
    trained = adapter.task_of(_adapter(build))
    found = trained or task_of(config)
    if found is not None and found != task and not build.config.handler.allow_untrained_head:
        name = "an adapter" if trained else f"a {', '.join(map(str, config['architectures']))}: a model"
        raise InputError(
            f"{build.config.model.name} is {name} for {found.name}, not for {task.name}.",
            fix=f"Use --task {found.name}, or a model that was fine-tuned for {task.name}.",
        )
    if config.get("is_encoder_decoder"):
        raise InputError(
            f"{build.config.model.name} ({config.get('model_type')}) is an encoder-decoder: no handler serves it.",
            fix="Use an encoder for classification and question answering, or a decoder for text generation.",
        )


def labels(build: Build) -> dict[int, str] | None:
    """Index -> name of the task's labels, None where it has none. Raises InputError on a contradiction."""
    handler, task = build.config.handler, build.config.task
    if not task.labelled:
        return None
    asked = handler.labels
    number = len(asked) if asked else handler.num_labels
    own = _own_labels(build, number)
    if number and number != len(own) and not handler.allow_untrained_head:
        key = "handler.labels" if asked else "handler.num_labels"
        names = ", ".join(list(own.values())[:6]) + (", ..." if len(own) > 6 else "")
        raise InputError(
            f"{number} labels are asked for ({key}), and the checkpoint has {len(own)}: {names}.",
            fix=f"Leave it out to take the checkpoint's, or use {len(own)}.",
        )
    if asked:
        return dict(asked)
    if number and number != len(own):
        return {index: f"LABEL_{index}" for index in range(number)}
    return own


def _own_labels(build: Build, asked: int | None) -> dict[int, str]:
    """Those of the checkpoint: of the head that came with an adapter, else as config.json has them. How many a pickled
    head has only its loading tells: then it is as many as are `asked` for."""
    own = labels_of(_config(build))
    file = build.find("download", f"{ADAPTER}/{ADAPTER_WEIGHTS}")
    number = adapter.labels(tensors(file, ADAPTER_WEIGHTS)) if file else asked if is_adapter(build) else None
    return own if number in (None, len(own)) else {index: f"LABEL_{index}" for index in range(number)}


def tolerance(build: Build) -> float:
    """The most by which an answer's score may differ from the original's. Numbers of 16 bits have some three digits,
    and padding alone moves the last of them."""
    asked, hardware = build.config.verify.tolerance, build.config.handler.hardware
    if asked is not None:
        return asked
    if dtype(build) in ("bfloat16", "float16"):
        return 2e-2
    if hardware not in CHIPS:
        return 1e-4
    # Another machine's float32, whose sums go in another order; and 16 bits where it may cast, or knows nothing else:
    # Inf1 multiplies in bfloat16 whatever it is told (AWS's reference of neuron-cc, --fast-math).
    return 1e-3 if hardware == "neuronx" and build.config.hardware.casts == "none" else 2e-2


def dtype(build: Build) -> str:
    """The type of the weights that are served; of the checkpoint's own, its name."""
    asked: str = build.config.handler.dtype
    if asked != "auto":
        return asked
    config = _config(build)
    return str(config.get("dtype", config.get("torch_dtype")) or "float32").removeprefix("torch.")


def load_settings(build: Build, folder: Path) -> dict[str, Any]:
    """The part of a worker's job that says how to load the original model (`loading.model`)."""
    handler = build.config.handler
    own = labels(build)
    return {
        "checkpoint": str(folder),
        "auto_class": build.config.task.auto_class,
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
