"""Applies an adapter (PEFT) to its base model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import InputError

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
    try:
        wrapped = PeftModel.from_pretrained(model, str(folder), torch_device="cpu", local_files_only=True)
        # Load it again: from_pretrained does not return the keys that did not match.
        result = wrapped.load_adapter(str(folder), "default", torch_device="cpu", local_files_only=True)
        names = load_peft_weights(str(folder), device="cpu")
    except Exception as error:
        # The first of several lines only says that there are errors.
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
        detail = f"{type(error).__name__}: {lines[min(1, len(lines) - 1)][:200]}"
        raise _misfit(f"peft cannot apply the adapter to its base model: {detail}") from None
    if not hasattr(wrapped.base_model, "merge_and_unload"):
        kind = wrapped.peft_config["default"].peft_type
        raise InputError(
            f"The adapter is of the kind {getattr(kind, 'value', kind)}, which cannot be merged into its base model.",
            fix="Use one that changes weights, such as LoRA.",
        )
    if result.unexpected_keys:
        name = min(result.unexpected_keys).removeprefix(_PREFIX)
        raise _misfit(f"The adapter does not fit its base model, which has no weight {name}.")
    if lacks := [name for name in result.missing_keys if ".default" in name]:
        raise _misfit(f"The adapter does not fit its base model: it has no {min(lacks).removeprefix(_PREFIX)}.")
    whole = {name.removeprefix(_PREFIX) for name in names}
    return wrapped.merge_and_unload() if merge else wrapped.get_base_model(), whole


def _misfit(what: str) -> InputError:
    return InputError(
        what,
        "It was trained on a different base model, for a different task, or by a newer peft.",
        "Set handler.base_model to the model that it was trained on, or upgrade peft.",
    )
