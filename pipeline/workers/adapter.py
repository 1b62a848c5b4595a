"""Applies an adapter (PEFT) to its base model."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import InputError, MarError
from ..model.checkpoint import read_json
from ..model.selection import ADAPTER_CONFIG
from .bounded import bounded

_PREFIX = "base_model.model."
"""The prefix of an adapter's tensor names: PEFT's wrapper, and the model in it."""


def apply(model: Any, folder: Path, *, merge: bool) -> tuple[Any, set[str]]:
    """The model with the adapter of `folder` in its layers, or with `merge` in its weights; and the names of the
    weights that the adapter replaces as a whole, such as a head.

    Raises InputError if peft is missing, or if adapter and base model do not fit.
    """
    try:
        from peft import PeftModel
        from peft.utils.save_and_load import load_peft_weights
    except ImportError:
        raise InputError(
            "The model is an adapter, and merging it into its base needs the package peft, which is not installed.",
            fix="Install it: pip install 'mar-pipeline[peft]'",
        ) from None
    with _fitting():
        weights = load_peft_weights(str(folder), device="cpu")
    names = {name.removeprefix(_PREFIX): tuple(weight.shape) for name, weight in weights.items()}
    with _fitting():
        _try_patterns(folder, [name for name, _ in model.named_modules()])
        has_tokens = _resize(model, names)
        wrapped = PeftModel.from_pretrained(model, str(folder), torch_device="cpu", local_files_only=True)
        # Load it again: from_pretrained does not return the keys that did not match.
        result = wrapped.load_adapter(str(folder), "default", torch_device="cpu", local_files_only=True)
    if not hasattr(wrapped.base_model, "merge_and_unload"):
        kind = wrapped.peft_config["default"].peft_type
        raise InputError(
            f"The adapter is of the kind {getattr(kind, 'value', kind)}, which cannot be merged into its base model.",
            fix="Use one that changes weights, such as LoRA.",
        )
    if odd := [name for name in result.unexpected_keys if not _is_copy(name, weights, result.unexpected_keys)]:
        raise _misfit(f"The adapter does not fit its base model, which has no weight {min(odd).removeprefix(_PREFIX)}.")
    if lacks := [name for name in result.missing_keys if ".default" in name]:
        raise _misfit(f"The adapter does not fit its base model: it has no {min(lacks).removeprefix(_PREFIX)}.")
    if not merge:
        return wrapped.get_base_model(), set(names)
    if has_tokens:
        _separate(wrapped.get_base_model())
    merged = wrapped.merge_and_unload()
    if has_tokens:
        _untie(merged)
    return merged, set(names)


@contextmanager
def _fitting() -> Iterator[None]:
    """Turn any error of peft into InputError."""
    try:
        yield
    except MarError:
        raise
    except Exception as error:
        # The first of several lines only says that there are errors.
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
        detail = f"{type(error).__name__}: {lines[min(1, len(lines) - 1)][:200]}"
        raise _misfit(f"peft cannot apply the adapter to its base model: {detail}") from None


def _try_patterns(folder: Path, names: list[str]) -> None:
    """Match the patterns in the adapter's config with the names of the model's parts, as peft will: a pattern may take
    forever."""
    config = read_json(folder / ADAPTER_CONFIG)
    groups = [config.get(key) for key in ("target_modules", "exclude_modules", "layers_pattern")]
    keyed = [config.get(key) for key in ("rank_pattern", "alpha_pattern")]
    patterns = [*(one for one in groups if isinstance(one, str)), *(key for one in keyed for key in one or ())]
    with bounded(30):
        for pattern in map(re.compile, patterns):
            for name in names:
                pattern.match(name)


def _resize(model: Any, shapes: dict[str, tuple[int, ...]]) -> bool:
    """Give the model the number of tokens that its adapter was trained with, as the trainer did before. `shapes` are
    those of the adapter's tensors. Returns whether the adapter has embeddings. Raises InputError if it lacks those of
    tokens that it adds."""
    parts = [part for part in (model.get_input_embeddings(), model.get_output_embeddings()) if part is not None]
    places = {name: module for name, module in model.named_modules() if any(module is part for part in parts)}
    sizes: set[int] = set()
    whole: list[Any] = []
    for place, module in places.items():
        for name, shape in shapes.items():
            if name.startswith(f"{place}.") and name.endswith(".lora_embedding_A"):
                sizes.add(shape[1])
            elif name.startswith(f"{place}.") and name.endswith(".weight") and "lora_" not in name:
                sizes.add(shape[0])
                whole.append(module.weight)
    old, new = int(parts[0].weight.shape[0]), max(sizes, default=0)
    if sizes and new != old:
        # Tied embeddings are one weight.
        if new > old and not all(any(part.weight is weight for weight in whole) for part in parts):
            raise InputError(
                f"The adapter was trained with {new} tokens, which is {new - old} more than its base model has, and "
                "lacks embeddings for them.",
                "It was saved without them, so these tokens would have random values.",
                "Save it again with save_embedding_layers=True, or merge it where it was trained.",
            )
        model.resize_token_embeddings(new)
    return bool(sizes)


def _is_copy(name: str, weights: dict[str, Any], unexpected: Collection[str]) -> bool:
    """Whether a tensor that peft did not expect only repeats one that it has loaded, or the base model's. peft writes
    such tensors for resized embeddings."""
    import torch

    if ".original_module." in name:
        return True
    others = (weight for other, weight in weights.items() if other not in unexpected)
    return name in weights and any(torch.equal(weights[name], weight) for weight in others)


def _separate(model: Any) -> None:
    """Give tied output embeddings a weight of their own, so that what is merged into one does not change the other."""
    import torch

    layers = [
        getattr(part, "base_layer", part) for part in (model.get_input_embeddings(), model.get_output_embeddings())
    ]
    if layers[1] is not None and layers[0].weight is layers[1].weight:
        layers[1].weight = torch.nn.Parameter(layers[1].weight.detach().clone())


def _untie(model: Any) -> None:
    """Note in the model's config if input and output embeddings, which it ties, have become different."""
    import torch

    inputs, outputs = model.get_input_embeddings(), model.get_output_embeddings()
    if outputs is not None and not torch.equal(inputs.weight, outputs.weight):
        model.config.tie_word_embeddings = model.config.get_text_config().tie_word_embeddings = False


def _misfit(what: str) -> InputError:
    return InputError(
        what,
        "It was trained on a different base model, for a different task, or by a newer peft.",
        "Set handler.base_model to the model that it was trained on, or upgrade peft.",
    )
