"""Why a repository has no weights that can be used, and what to do."""

from __future__ import annotations

import re
from collections.abc import Collection
from fnmatch import fnmatch

from ..text import printable
from .checkpoint import FOREIGN, PICKLES, WEIGHTS

_SHARD = re.compile(r"(pytorch_)?model-\d+-of-\d+\.(safetensors|bin)")
_LEFT_BY_TRAINING = ("optimizer.pt", "scheduler.pt", "scaler.pt", "rng_state*.pth", "training_args.bin")
_VARIANT = re.compile(r"(model|pytorch_model)\.[\w-]+\.(safetensors|bin)")
"""A variant: `model.fp16.safetensors`."""


def why_none(present: Collection[str], pickles: bool) -> tuple[str, str]:
    """The likely reason for missing weights, and what to do."""
    names = sorted(printable(path.rpartition("/")[2]) for path in present)
    usable = ("safetensors", "bin") if pickles else ("safetensors",)
    for name in names:
        if _SHARD.fullmatch(name) and name.endswith(usable):
            return (
                f"It has shards of weights ({name}), but no index that lists their tensors.",
                "Copy the index too (model.safetensors.index.json), or save the model again.",
            )
    for name in (name for name in names if name.endswith(usable)):
        if _VARIANT.fullmatch(name):
            return (
                f"Its weights are a variant ({name}), which transformers loads only if it is asked for it.",
                f"Rename the file to {'pytorch_model.bin' if name.endswith('.bin') else WEIGHTS}.",
            )
        if name.endswith(".safetensors") and not name.startswith("adapter_"):
            return (
                f"It has {name}, whose name is not one that transformers loads.",
                f"If it has the weights by transformers' names, rename it to {WEIGHTS}; else save the model with "
                "save_pretrained().",
            )
    for name in names:
        by_training = any(fnmatch(name, pattern) for pattern in _LEFT_BY_TRAINING)
        if not by_training and any(fnmatch(name, pattern) for pattern in PICKLES):
            return f"Its weights are pickled ({name}), and loading a pickle can run any code.", _advice(name, pickles)
    for name in names:
        for pattern, framework in FOREIGN.items():
            if fnmatch(name, pattern):
                return (
                    f"Its weights are {framework}'s ({name}).",
                    "Convert the model to PyTorch with transformers, and save it with save_pretrained().",
                )
    return "It has no weight files.", "Save the model with save_pretrained(), or name another one."


def _advice(name: str, pickles: bool) -> str:
    """What to do about a pickle of that name, with handler.allow_pickle (`pickles`) or without."""
    if not pickles and fnmatch(name, "*_model*.bin"):
        return "Set handler.allow_pickle: true: they are read as tensors (weights_only), and stored as safetensors."
    return "Load the model with the program that made it, and save it with save_pretrained()."
