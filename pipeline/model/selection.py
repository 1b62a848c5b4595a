"""Which files of a repository or a folder a checkpoint needs, and what they are called in it.

In the checkpoint config.json, the weights and the tokenizer's files lie side by side, wherever their repository has
them: at its root, in a sentence-transformers module (`modules.json`), or in the parts of an MLflow model (`MLmodel`).
An adapter's own files lie in `adapter/`, and its base model's around it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import PurePosixPath
from typing import Any

from ..errors import InputError
from ..text import printable
from .checkpoint import CONFIG, FOREIGN, INDEX, PICKLES, SIDE_FILES, VOCABULARIES, WEIGHTS

PICKLE, PICKLE_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
ADAPTER = "adapter"
"""The folder of an adapter's files in a checkpoint."""
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS, _ADAPTER_PICKLE = "adapter_model.safetensors", "adapter_model.bin"
_MODULES = "modules.json"
_CARD = "README.md"

_SHARD = re.compile(r"(pytorch_)?model-\d+-of-\d+\.(safetensors|bin)")
_LEFT_BY_TRAINING = ("optimizer.pt", "scheduler.pt", "scaler.pt", "rng_state*.pth", "training_args.bin")

Text = Callable[[str], str]
"""Reads a small file, by its path."""


@dataclass(frozen=True, kw_only=True)
class Base:
    """The model that an adapter was trained on, as its config names it; "" if it does not."""

    name: str
    revision: str | None


@dataclass(frozen=True, kw_only=True)
class Selection:
    """`files`: the path in the repository of each file of the checkpoint; `base`, of an adapter."""

    files: dict[str, str]
    base: Base | None = None


def select(
    present: Collection[str],
    where: str,
    text: Text,
    *,
    pickles: bool = False,
    tokenizer: bool = True,
) -> Selection:
    """What to take of a repository whose files are `present` (paths with `/`), with `pickles` if there are no
    safetensors. Raises InputError, also if it needs a `tokenizer` and there is none."""
    for path in present:
        refuse_outside(path, where)
    if ADAPTER_CONFIG in present and not _has_weights(present):
        return _adapter(present, where, text, pickles)
    homes = _homes(present, where, text)
    names = _weights(homes.model, present, where, text, pickles)
    files = {name: homes.model + name for name in [CONFIG, *names]}
    side = _side_files(present, homes.tokenizer)
    if tokenizer and not has_vocabulary(side):
        raise InputError(
            f"{where} holds no tokenizer (no tokenizer.json, vocab.txt, vocab.json or *.model).",
            "A model saved without its tokenizer cannot answer texts.",
            "Save it beside the weights: AutoTokenizer.from_pretrained(<its base model>).save_pretrained(<folder>).",
        )
    return Selection(files={**files, **_side_files(present, homes.model), **side})


def with_base(adapter: Selection, base: Selection) -> Selection:
    """The files of an adapter's base model around it: a tokenizer of the adapter's own replaces the base's."""
    theirs = dict(base.files)
    if has_vocabulary(adapter.files):
        kept = ("generation_config.json",)
        theirs = {name: path for name, path in theirs.items() if name not in SIDE_FILES or name in kept}
    return Selection(files=theirs)


def has_vocabulary(names: Iterable[str]) -> bool:
    return any(fnmatch(name, pattern) for name in names for pattern in VOCABULARIES)


def refuse_outside(path: str, where: str) -> None:
    """Raises InputError for a path that would lead out of its folder."""
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts:
        raise InputError(
            f"{where} names a file {path!r}, which leads out of its folder.",
            fix="Do not use it: nobody's tools write such names.",
        )


def read_object(text: str, path: str, where: str) -> dict[str, Any]:
    """A JSON object. Raises InputError if it is none."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}/{path} cannot be read as JSON: {error}.", fix="Save the model again.") from None
    if not isinstance(value, dict):
        raise InputError(f"{where}/{path} holds no JSON object.", fix="Save the model again.")
    return value


def card(present: Collection[str]) -> str | None:
    """The model card, if there is one."""
    return _CARD if _CARD in present else None


@dataclass(frozen=True)
class _Homes:
    """Where the model and its tokenizer lie: "" or a folder with its `/`."""

    model: str
    tokenizer: str


def _homes(present: Collection[str], where: str, text: Text) -> _Homes:
    # The first versions of sentence-transformers wrote a config.json of their own beside modules.json.
    if CONFIG in present and (_MODULES not in present or _has_weights(present)):
        return _Homes("", "")
    if _MODULES in present:
        folder = _transformer_module(text(_MODULES), where)
        if folder + CONFIG in present:
            return _Homes(folder, folder)
    if CONFIG in present:
        return _Homes("", "")
    if "MLmodel" in present and "model/" + CONFIG in present:
        tokenizer = "components/tokenizer/"
        return _Homes("model/", tokenizer if any(path.startswith(tokenizer) for path in present) else "model/")
    runs = {printable(path.split("/")[0]) for path in present if fnmatch(path, "checkpoint-*/*")}
    checkpoints = sorted(runs, key=_number)
    if checkpoints:
        raise InputError(
            f"{where} holds no config.json, but {', '.join(checkpoints[-3:])} of a training run.",
            fix=f"Name one of them, the newest is {where.rstrip('/')}/{checkpoints[-1]}",
        )
    raise InputError(
        f"{where} holds no config.json, so it is no Hugging Face checkpoint.",
        fix="Point at the folder that save_pretrained() wrote, or at a model's Hub id.",
    )


def _number(name: str) -> tuple[int, str]:
    digits = name.rpartition("-")[2]
    return (int(digits) if digits.isdigit() else 0, name)


# The last word of a module's type in modules.json: the one that holds a transformer, and what its first versions called
# it by the model's family.
_TRANSFORMERS = ("Transformer", "MLMTransformer", "BERT", "RoBERTa", "DistilBERT", "ALBERT", "CamemBERT", "XLMRoBERTa")


def _transformer_module(modules: str, where: str) -> str:
    """The folder of the transformer among a sentence-transformers model's modules."""
    try:
        rows = [(str(row["path"]), str(row["type"]).rpartition(".")[2]) for row in json.loads(modules)]
        found = [path for path, kind in rows if kind in _TRANSFORMERS]
    except (ValueError, KeyError, TypeError, RecursionError):
        found = []
    if len(found) != 1:
        raise InputError(
            f"{where}/{_MODULES} names no transformer among its modules.",
            fix="Point at the folder of the transformer itself, which has a config.json.",
        )
    if not found[0]:
        return ""
    refuse_outside(found[0], where)
    return found[0].rstrip("/") + "/"


def _side_files(present: Collection[str], home: str) -> dict[str, str]:
    return {name: home + name for name in SIDE_FILES if home + name in present}


def _weights(home: str, present: Collection[str], where: str, text: Text, pickles: bool) -> list[str]:
    """The files of the weights, with their index if they have one: those that transformers' from_pretrained loads of a
    folder (`_get_resolved_checkpoint_files` in its modeling_utils.py). A single file comes before an index, which may
    be left of an older save, and safetensors before pickles. Raises InputError if there are none to be used."""
    indices = {WEIGHTS: INDEX, **({PICKLE: PICKLE_INDEX} if pickles else {})}
    for single, index in indices.items():
        if home + single in present:
            return [single]
        if home + index in present:
            parts = shards(text(home + index), f"{where}/{home}{index}", PurePosixPath(single).suffix)
            if absent := [part for part in parts if home + part not in present]:
                raise InputError(
                    f"{where} lacks {absent[0]}, which its index of weights names.",
                    f"A copy of it stopped half-way, or {index} is left of an older save.",
                    "Copy the missing shards, save the model again, or name another revision.",
                )
            return [index, *parts]
    raise InputError(f"{where} holds no model.safetensors.", *_why_no_weights(present, pickles))


def _has_weights(present: Collection[str]) -> bool:
    """Whether a whole model's weights lie at the root."""
    return any(name in present for name in (WEIGHTS, INDEX, PICKLE, PICKLE_INDEX))


def _why_no_weights(present: Collection[str], pickles: bool) -> tuple[str, str]:
    names = sorted(printable(path.rpartition("/")[2]) for path in present)
    usable = ("safetensors", "bin") if pickles else ("safetensors",)
    for name in names:
        if _SHARD.fullmatch(name) and name.endswith(usable):
            return (
                f"It has shards of weights ({name}), and no index that says what is in them.",
                "Copy the index too (model.safetensors.index.json), or save the model again.",
            )
    for name in names:
        left = any(fnmatch(name, pattern) for pattern in _LEFT_BY_TRAINING)
        if not left and any(fnmatch(name, pattern) for pattern in PICKLES):
            return f"Its weights are pickled ({name}), and loading a pickle can run any code.", _to_do(name, pickles)
    for name in names:
        for pattern, framework in FOREIGN.items():
            if fnmatch(name, pattern):
                return (
                    f"Its weights are {framework}'s ({name}).",
                    "Convert the model to PyTorch with transformers, and save it with save_pretrained().",
                )
    return "There are no weights in it.", "Save the model with save_pretrained(), or name another one."


def _to_do(name: str, pickles: bool) -> str:
    """What to do with a pickle of that name, where `pickles` are taken."""
    if not pickles and fnmatch(name, "*_model*.bin"):
        return "Set handler.allow_pickle: true: they are read as tensors (weights_only), and kept as safetensors."
    return "Load the model with the program that made it, and save it with save_pretrained()."


def shards(index: str, where: str, suffix: str = ".safetensors") -> list[str]:
    """The weight files that an index (its JSON text) names, sorted. Raises InputError if it is no index, or if
    a name leads out of the folder."""
    try:
        names = sorted(set(json.loads(index)["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        names = []
    if not names:
        raise InputError(
            f"{where} is no index of weights: it has no weight_map.",
            fix="Copy it again, or save the model again.",
        )
    for name in names:
        path = PurePosixPath(str(name))
        if path.is_absolute() or ".." in path.parts or path.suffix != suffix or not str(name).isprintable():
            raise InputError(
                f"{where} names {name!r}, which is no {suffix} file of this folder.",
                fix="Do not use it unless you know who wrote that name; save the model again.",
            )
    return names


def _adapter(present: Collection[str], where: str, text: Text, pickles: bool) -> Selection:
    told = read_object(text(ADAPTER_CONFIG), ADAPTER_CONFIG, where)
    base, revision = told.get("base_model_name_or_path"), told.get("revision")
    if told.get("megatron_config"):
        # peft would import whatever module its config names for them.
        raise InputError(
            f"{where} is an adapter for Megatron's layers, which transformers' models have not.",
            fix="Train one for the layers of a transformers model.",
        )
    weights = next((name for name in (ADAPTER_WEIGHTS, _ADAPTER_PICKLE) if name in present), None)
    if weights is None or (weights.endswith(".bin") and not pickles):
        raise InputError(
            f"{where} is an adapter without adapter_model.safetensors.", *_why_no_weights(present, pickles)
        )
    files = {f"{ADAPTER}/{name}": name for name in (ADAPTER_CONFIG, weights)}
    side = _side_files(present, "")
    return Selection(
        files={**files, **(side if has_vocabulary(side) else {})},
        base=Base(name=base if isinstance(base, str) else "", revision=revision if isinstance(revision, str) else None),
    )
