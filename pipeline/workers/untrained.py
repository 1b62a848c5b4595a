"""Worker side: whether a model's weights are those of its checkpoint. A head may be untrained if that is allowed; a
body never."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..model import checkpoint

Shapes = dict[str, tuple[int, ...]]

_WRAPPERS = {
    "module": "DataParallel or DistributedDataParallel",
    "_orig_mod": "torch.compile",
    "_fsdp_wrapped_module": "FSDP",
    "_checkpoint_wrapped_module": "activation checkpointing",
}
"""What torch's wrappers call the module that they hold, anywhere in a name -> which wrapper it is."""


@dataclass(frozen=True)
class Expected:
    """The weights of a model: its class, their names, and how the names of its body begin, on which a head is put."""

    kind: str
    names: tuple[str, ...]
    body: tuple[str, ...]

    @classmethod
    def of(cls, model: Any) -> Expected:
        """Of a model without an adapter. Its body is the `base_model_prefix` of its class and whatever other model of
        transformers it holds: true of all classes for our tasks in transformers 4.57 and 5.24. Where neither is there,
        all of it counts as its body."""
        from transformers import PreTrainedModel

        parts = [name for name, child in model.named_children() if isinstance(child, PreTrainedModel)]
        prefix = getattr(model, "base_model_prefix", "")
        if prefix and hasattr(model, prefix):
            parts.append(prefix)
        return cls(type(model).__name__, tuple(model.state_dict()), tuple(f"{part}." for part in parts) or ("",))

    def in_body(self, name: str) -> bool:
        """Whether a weight is the body's. Its pooler counts as a head's: it is trained with one, and a checkpoint of a
        language model has none."""
        pooler = tuple(f"{part}pooler." for part in self.body)
        return name.startswith(self.body) and not name.startswith(pooler)

    def bare(self, name: str) -> str:
        """The name as a checkpoint of the body alone has it."""
        return next((name[len(part) :] for part in self.body if name.startswith(part)), name)


def stored(folder: Path) -> dict[str, Shapes]:
    """The shapes of the weights in each safetensors file of a checkpoint, read of their headers."""
    found = {}
    for file in sorted(folder.rglob("*.safetensors")):
        name = file.relative_to(folder).as_posix()
        header = checkpoint.tensors(file, name)
        found[name] = {weight: tuple(told["shape"]) for weight, told in header.items()}
    return found


def refuse_empty(files: Mapping[str, Shapes], own: Callable[[], Shapes]) -> None:
    """Raises InputError if weights have no values, unless the model's `own` ones of that name have none either."""
    held = {name: shape for shapes in files.values() for name, shape in shapes.items()}
    empty = {name: shape for name, shape in held.items() if 0 in shape}
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
            f"{len(bad)} of the checkpoint's {len(held)} weights are empty: {name} has the shape {list(held[name])}.",
            "DeepSpeed's ZeRO-3 leaves such where a model is saved without its weights being gathered.",
            "Make it whole with the zero_to_fp32.py that DeepSpeed put beside its own checkpoint, or train with "
            "stage3_gather_16bit_weights_on_model_save: true, and save the model again.",
        )


def refuse(
    expected: Expected,
    files: Mapping[str, Shapes],
    missing: Collection[str],
    others: Mapping[str, str],
    *,
    head_too: bool,
) -> None:
    """Raises InputError if weights of the model's body are `missing`, or have `others` shapes (name -> which) than the
    checkpoint's `files`; and with `head_too`, weights of its head."""
    absent = sorted(name for name in missing if expected.in_body(name))
    if absent:
        _refuse_body(expected, files, absent)
    if body := {name: shapes for name, shapes in others.items() if expected.in_body(name)}:
        name, shapes = min(body.items())
        raise InputError(
            f"The checkpoint's weights and its config.json do not belong together: {name} is {shapes}.",
            "One of the two was edited, or is another model's.",
            "Put the config.json back that was saved with the weights, or save the model again.",
        )
    if head_too:
        _refuse_head(expected, sorted(missing), others)


def _refuse_head(expected: Expected, missing: list[str], others: Mapping[str, str]) -> None:
    if others:
        name, shapes = min(others.items())
        raise InputError(
            f"The checkpoint's head has another shape than its settings say: {name} is {shapes}.",
            fix="Leave handler.num_labels and labels out, or set allow_untrained_head: true for a new head.",
        )
    if missing:
        raise InputError(
            f"The checkpoint does not hold the weights {_some(missing)}: {expected.kind} would answer at random.",
            "It was not fine-tuned for this task, or was saved by another class.",
            "Use a fine-tuned model, or set handler.allow_untrained_head: true if that is meant.",
        )


def _refuse_body(expected: Expected, files: Mapping[str, Shapes], absent: list[str]) -> None:
    names = {name: file for file, shapes in files.items() if "/" not in file for name in shapes}
    if found := _wrapped(expected, names, absent):
        words, name, inner = found
        shown = " and ".join(words)
        by = [_WRAPPERS[word[:-1]] for word in words if word[:-1] in _WRAPPERS]
        around = " and ".join(by) or "another object, such as a training framework's module,"
        raise InputError(
            f"The checkpoint's weights have {shown} in their names: {name}, where {expected.kind} has {inner}.",
            f"They were saved while {around} was still around the model.",
            "Save the inner model with save_pretrained(), or rename the weights once, in their folder: "
            + _renaming(words, sorted(set(names.values()))),
        )
    if all(name in absent for name in expected.names if expected.in_body(name)):
        raise InputError(
            f"The checkpoint's weights are not those of a {expected.kind}: it has none like {absent[0]}, but "
            f"{_some(sorted(names), 2)}.",
            "Its config.json is another model's, or another program saved the weights by names of its own.",
            "Put the config.json beside them that belongs to them, or convert the model to transformers' format.",
        )
    raise InputError(
        f"The checkpoint lacks weights of the model's body: {_some(absent)}. {expected.kind} would answer at random.",
        "It was saved in part, or its config.json is another model's. No setting admits that: allow_untrained_head is "
        "for heads alone.",
        "Save the whole model again with save_pretrained().",
    )


def _wrapped(expected: Expected, names: Iterable[str], absent: Collection[str]) -> tuple[list[str], str, str] | None:
    """What has to be taken out of the checkpoint's names for the absent weights to be there, a name of the checkpoint,
    and the model's name for the same weight; None if most are not there even so."""
    inner = {}
    for name in names:
        parts = name.split(".")
        inner[".".join(part for part in parts if part not in _WRAPPERS)] = name
    # What stands in front, by the names that are longest: they are found nowhere by chance.
    fronts = {
        found[: -len(name)]
        for name in sorted(absent, key=len)[-3:]
        for found in inner
        if f".{found}".endswith(f".{name}")
    }
    for front in sorted({"", *fronts}, key=lambda front: (len(front), front)):
        fit = {front + name: name for name in absent if front + name in inner}
        if not front:  # A checkpoint may be of the body alone; behind anything else it could be another family's.
            fit |= {expected.bare(name): name for name in absent if expected.bare(name) in inner}
        words = [f"{word}." for word in _WRAPPERS if any(word in inner[each].split(".") for each in fit)]
        words += [front] if front else []
        if words and len(fit) * 2 >= len(absent):
            first = next(iter(fit))
            return words, inner[first], fit[first]
    return None


def _renaming(words: list[str], files: list[str]) -> str:
    """A command that writes the weights of `files` to a model.safetensors under names without these words."""
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
