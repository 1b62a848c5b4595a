"""Lays an adapter (PEFT) over its base model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import InputError

_PREFIX = "base_model.model."
"""Of the names of an adapter's tensors: PEFT's wrapper, and its own model in it."""


def laid_over(model: Any, folder: Path, *, merge: bool) -> tuple[Any, set[str]]:
    """The model with the adapter of `folder` at work in its layers, or merged into its weights; and the names of the
    weights that came whole with it, such as a head. Raises InputError if peft is missing, or if the two do not fit."""
    try:
        from peft import PeftModel
        from peft.utils.save_and_load import load_peft_weights
    except ImportError:
        raise InputError(
            "The model is an adapter, and merging it into its base needs the package peft, which is not installed.",
            fix="Install it: pip install 'mar-pipeline[peft]'",
        ) from None
    try:
        over = PeftModel.from_pretrained(model, str(folder), torch_device="cpu", local_files_only=True)
        # The same again, since the first time tells nothing of weights that were left over.
        result = over.load_adapter(str(folder), "default", torch_device="cpu", local_files_only=True)
        names = load_peft_weights(str(folder), device="cpu")
    except Exception as error:
        # The first of several lines is only that there are errors.
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
        said = f"{type(error).__name__}: {lines[min(1, len(lines) - 1)][:200]}"
        raise _misfit(f"peft cannot lay the adapter over its base model: {said}") from None
    if not hasattr(over.base_model, "merge_and_unload"):
        kind = over.peft_config["default"].peft_type
        raise InputError(
            f"The adapter is of the kind {getattr(kind, 'value', kind)}, which cannot be merged into its base model.",
            fix="Use one that changes weights, such as LoRA.",
        )
    if result.unexpected_keys:
        name = min(result.unexpected_keys).removeprefix(_PREFIX)
        raise _misfit(f"The adapter does not fit its base model, which has no place for {name}.")
    if lacks := [name for name in result.missing_keys if ".default" in name]:
        raise _misfit(f"The adapter does not fit its base model: it has no {min(lacks).removeprefix(_PREFIX)}.")
    brought = {name.removeprefix(_PREFIX) for name in names}
    return over.merge_and_unload() if merge else over.get_base_model(), brought


def _misfit(what: str) -> InputError:
    return InputError(
        what,
        "It was trained on another base, for another task, or by a newer peft.",
        "Set handler.base_model to the one that it was trained on, or upgrade peft.",
    )
