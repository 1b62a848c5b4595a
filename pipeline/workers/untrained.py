"""Worker side: whether a model's weights come from its checkpoint. Only a head may be untrained, if that is allowed."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..model import checkpoint, settings_files

Shapes = dict[str, tuple[int, ...]]

_WRAPPERS = {
    "module": "DataParallel or DistributedDataParallel",
    "_orig_mod": "torch.compile",
    "_fsdp_wrapped_module": "FSDP",
    "_checkpoint_wrapped_module": "activation checkpointing",
}
"""Parts of weight names that torch's wrappers add for the wrapped module -> the wrapper."""


@dataclass(frozen=True)
class Expected:
    """The weights of a model: its class, all names, and the prefixes of its body, the model without its head."""

    kind: str
    names: tuple[str, ...]
    body: tuple[str, ...]

    @classmethod
    def of(cls, model: Any) -> Expected:
        """The weights of a model without an adapter.

        Its body is its `base_model_prefix` and every child that is a transformers model; this holds for all classes of
        our tasks in transformers 4.57 and 5.24. Without either, the whole model counts as its body.
        """
        from transformers import PreTrainedModel

        parts = [name for name, child in model.named_children() if isinstance(child, PreTrainedModel)]
        prefix = getattr(model, "base_model_prefix", "")
        if prefix and hasattr(model, prefix):
            parts.append(prefix)
        return cls(type(model).__name__, tuple(model.state_dict()), tuple(f"{part}." for part in parts) or ("",))

    def in_body(self, name: str) -> bool:
        """Whether a weight belongs to the body. The pooler counts as part of the head: it is trained with one, and
        language models' checkpoints have none."""
        pooler = tuple(f"{part}pooler." for part in self.body)
        return name.startswith(self.body) and not name.startswith(pooler)

    def bare(self, name: str) -> str:
        """A weight's name in a checkpoint of the body alone."""
        return next((name[len(part) :] for part in self.body if name.startswith(part)), name)


def stored(folder: Path) -> dict[str, Shapes]:
    """The shapes of the weights in each safetensors file of a checkpoint, from their headers."""
    shapes = {}
    for file in sorted(folder.rglob("*.safetensors")):
        name = file.relative_to(folder).as_posix()
        header = checkpoint.tensors(file, name)
        shapes[name] = {weight: tuple(entry["shape"]) for weight, entry in header.items()}
    return shapes


def refuse_empty(files: Mapping[str, Shapes], own: Callable[[], Shapes]) -> None:
    """Raises InputError if weights are empty, unless the model's `own` weights of the same names are empty too."""
    stored = {name: shape for shapes in files.values() for name, shape in shapes.items()}
    empty = {name: shape for name, shape in stored.items() if 0 in shape}
    if not empty:
        return
    fine = [(name, shape) for name, shape in own().items() if 0 in shape]
    bad = [
        name
        for name, shape in empty.items()
        if not any(shape == theirs and (name == other or other.endswith(f".{name}")) for other, theirs in fine)
    ]
    if bad:
        name = min(bad)
        raise InputError(
            f"{len(bad)} of the checkpoint's {len(stored)} weights are empty: {name} is {list(stored[name])}.",
            "DeepSpeed's ZeRO-3 writes such weights if a model is saved without gathering them.",
            "Convert it with the zero_to_fp32.py that DeepSpeed put beside its own checkpoint, or train with "
            "stage3_gather_16bit_weights_on_model_save: true, and save the model again.",
        )


def refuse_huge(config: dict[str, Any], files: Mapping[str, Shapes], own: Callable[[], Shapes]) -> None:
    """Raises InputError if config.json describes a model that is many times larger than the checkpoint's weights:
    building it would take all memory, or forever. `own` gives the shapes of the model's weights."""
    stored = [shape for shapes in files.values() for shape in shapes.values()]
    refuse_layers(config, len(stored))
    size = sum(map(prod, stored))
    numbers = [value for _, name, value in settings_files.keys_of(config, "") if _is_size(name, value)]
    # Many weights are packed if they are quantized.
    if max(numbers, default=0) > size and (wanted := sum(map(prod, own().values()))) > 32 * size + 10**7:
        raise _huge(f"a model of {wanted:,} numbers, and the checkpoint has {size:,}")


def _is_size(name: str, value: Any) -> bool:
    return type(value) is int and not name.endswith("_id")


def refuse_layers(config: dict[str, Any], weights: int) -> None:
    """Raises InputError if config.json describes a model of more layers or experts than the checkpoint has weights:
    each has several, unless layers share them."""
    numbers = {name: value for _, name, value in settings_files.keys_of(config, "") if type(value) is int}
    layers = max((value for name, value in numbers.items() if _LAYERS.fullmatch(name)), default=0)
    if layers > max(1000, weights):
        raise _huge(f"{layers:,} layers or experts, and the checkpoint has {weights:,} weights")


def _huge(found: str) -> InputError:
    return InputError(
        f"config.json describes {found}.",
        "A number in it is damaged, or it belongs to another model.",
        "Restore the config.json that was saved with the weights.",
    )


_LAYERS = re.compile(r"(?:n|num)(?:_\w+)?_(?:layers?|experts?|blocks?)|(?:en|de)coder_layers")


def refuse(
    expected: Expected,
    files: Mapping[str, Shapes],
    missing: Collection[str],
    others: Mapping[str, str],
    *,
    head_too: bool,
) -> None:
    """Raises InputError if weights of the body are `missing` from the checkpoint's `files`, or have other shapes there
    (`others`: name -> shapes as text). With `head_too`, weights of the head too."""
    absent = sorted(name for name in missing if expected.in_body(name))
    if absent:
        _refuse_body(expected, files, absent)
    if body := {name: shapes for name, shapes in others.items() if expected.in_body(name)}:
        name, shapes = min(body.items())
        raise InputError(
            f"The checkpoint's weights do not match its config.json: {name} is {shapes}.",
            "One of the two was edited, or belongs to another model.",
            "Restore the config.json that was saved with the weights, or save the model again.",
        )
    if head_too:
        _refuse_head(expected, sorted(missing), others)


def _refuse_head(expected: Expected, missing: list[str], others: Mapping[str, str]) -> None:
    if others:
        name, shapes = min(others.items())
        raise InputError(
            f"The shape of the checkpoint's head does not match the settings: {name} is {shapes}.",
            "The number of labels in config.json, or in handler.labels or handler.num_labels, is not that of the head.",
            "Set handler.num_labels to that of the head, or handler.allow_untrained_head: true for a new head.",
        )
    if missing:
        raise InputError(
            f"The checkpoint lacks the weights {_some(missing)}: {expected.kind} would answer at random.",
            "It was not fine-tuned for this task, or was saved by a different class.",
            "Use a fine-tuned model, or set handler.allow_untrained_head: true if you intend that.",
        )


def _refuse_body(expected: Expected, files: Mapping[str, Shapes], absent: list[str]) -> None:
    names = {name: file for file, shapes in files.items() if "/" not in file for name in shapes}
    if wrapped := _wrapped(expected, names, absent):
        words, name, inner = wrapped
        shown = " and ".join(words)
        by = [_WRAPPERS[word[:-1]] for word in words if word[:-1] in _WRAPPERS]
        around = " and ".join(by) or "another object, such as a training framework's module"
        raise InputError(
            f"The checkpoint's weights have {shown} in their names: {name}, where {expected.kind} has {inner}.",
            f"They were saved while the model was still wrapped in {around}.",
            "Save the inner model with save_pretrained(), or rename the weights once, in their folder: "
            + _renaming(words, sorted(set(names.values()))),
        )
    if all(name in absent for name in expected.names if expected.in_body(name)):
        raise InputError(
            f"The checkpoint's weights do not fit a {expected.kind}: instead of names like {absent[0]}, it has "
            f"{_some(sorted(names), 2)}.",
            "Its config.json belongs to another model, or another program saved the weights under its own names.",
            "Use the config.json that belongs to the weights, or convert the model to transformers' format.",
        )
    raise InputError(
        f"The checkpoint lacks weights of the model's body: {_some(absent)}. {expected.kind} would answer at random.",
        "It was saved in part, or its config.json belongs to another model. No setting allows that: "
        "handler.allow_untrained_head is for heads only.",
        "Save the whole model again with save_pretrained().",
    )


def _wrapped(expected: Expected, names: Iterable[str], absent: Collection[str]) -> tuple[list[str], str, str] | None:
    """The words to remove from the checkpoint's names so that they match the absent weights, with an example: a name in
    the checkpoint, and the model's name for it. None if that does not match most of them."""
    inner = {}
    for name in names:
        parts = name.split(".")
        inner[".".join(part for part in parts if part not in _WRAPPERS)] = name
    # Candidate prefixes, from the longest names: those do not match by chance.
    fronts = {
        candidate[: -len(name)]
        for name in sorted(absent, key=len)[-3:]
        for candidate in inner
        if f".{candidate}".endswith(f".{name}")
    }
    for front in sorted({"", *fronts}, key=lambda front: (len(front), front)):
        fit = {front + name: name for name in absent if front + name in inner}
        if not front:  # The checkpoint of a body alone; after another prefix, it could be another family's.
            fit |= {expected.bare(name): name for name in absent if expected.bare(name) in inner}
        words = [f"{word}." for word in _WRAPPERS if any(word in inner[each].split(".") for each in fit)]
        words += [front] if front else []
        if words and len(fit) * 2 >= len(absent):
            first = next(iter(fit))
            return words, inner[first], fit[first]
    return None


def _renaming(words: list[str], files: list[str]) -> str:
    """A command that writes the weights of `files` to model.safetensors, without these words in their names."""
    *most, last = words
    front = last[:-1] not in _WRAPPERS
    new = "n" + "".join(f".replace({word!r}, '')" for word in (most if front else words))
    new += f".removeprefix({last!r})" if front else ""
    which = f"'{files[0]}'" if len(files) == 1 else f"*glob('{files[0].partition('-')[0]}-*{Path(files[0]).suffix}')"
    read = "load_file(f)"
    if files[0].endswith(".bin"):
        read = "torch.load(f, 'cpu', weights_only=True)"
    return (
        'python -c "import torch; from glob import glob; from safetensors.torch import load_file, save_file; '
        f"w = {{{new}: t.contiguous().clone() for f in [{which}] for n, t in {read}.items()}}; "
        "save_file(w, 'model.safetensors', {'format': 'pt'})\""
    )


def _some(names: list[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
