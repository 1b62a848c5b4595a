"""Selects the files of a checkpoint from a repository or a folder, and their paths in the checkpoint.

A checkpoint has config.json, the weights and the tokenizer's files in one folder. The repository has them at its root,
in a sentence-transformers module (`modules.json`), or in the parts of an MLflow model (`MLmodel`). An adapter's own
files go to `adapter/`, beside the files of its base model.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import PurePosixPath
from typing import Any

from ..errors import InputError
from ..files import strict_json
from ..text import printable
from .checkpoint import CONFIG, INDEX, SIDE_FILES, VOCABULARIES, WEIGHTS
from .misplaced import refuse_cache
from .no_weights import why_none

PICKLE, PICKLE_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
ADAPTER = "adapter"
"""The checkpoint's folder for an adapter's files."""
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS, _ADAPTER_PICKLE = "adapter_model.safetensors", "adapter_model.bin"
_MODULES = "modules.json"
_CARD = "README.md"

Text = Callable[[str], str]
"""Reads a small text file of the repository, by its path."""


@dataclass(frozen=True, kw_only=True)
class Base:
    """The model that an adapter was trained on, by its config; the name is "" if the config has none."""

    name: str
    revision: str | None


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The selected files (path in the checkpoint -> path in the repository), and an adapter's base model."""

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
    """The checkpoint's files in a repository.

    present    the repository's files (paths with `/`)
    where      the repository's name in errors
    text       reads a small file
    pickles    whether to accept pickled weights if there are no safetensors
    tokenizer  whether to require a tokenizer

    Raises InputError if the config, the weights or the tokenizer is missing, and for a path that leads out of the
    repository.
    """
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
            f"{where} has no tokenizer (no tokenizer.json, vocab.txt, vocab.json or *.model).",
            "Without its tokenizer, a model cannot answer texts.",
            "Save it beside the weights: AutoTokenizer.from_pretrained(<its base model>).save_pretrained(<folder>).",
        )
    return Selection(files={**files, **_side_files(present, homes.model), **side})


def with_base(adapter: Selection, base: Selection) -> Selection:
    """The files to take from an adapter's base model: without its tokenizer, if the adapter has its own."""
    files = dict(base.files)
    if has_vocabulary(adapter.files):
        kept = ("generation_config.json",)
        files = {name: path for name, path in files.items() if name not in SIDE_FILES or name in kept}
    return Selection(files=files)


def has_vocabulary(names: Iterable[str]) -> bool:
    """Whether a tokenizer's vocabulary is among the files."""
    return any(fnmatch(name, pattern) for name in names for pattern in VOCABULARIES)


def refuse_outside(path: str, where: str) -> None:
    """Raise InputError for a path that leads out of its folder."""
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts:
        raise InputError(
            f"{where} names a file {path!r}, which leads out of its folder.",
            fix="Do not use it: no common tool writes such names.",
        )


def read_object(text: str, path: str, where: str) -> dict[str, Any]:
    """The JSON object in `text`. Raises InputError, with the file's name, if it does not have one."""
    try:
        value = strict_json.loads(text)
    except ValueError as error:
        raise InputError(f"{where}/{path} cannot be read as JSON: {error}.", fix="Save the model again.") from None
    if not isinstance(value, dict):
        raise InputError(f"{where}/{path} is not a JSON object.", fix="Save the model again.")
    return value


def card(present: Collection[str]) -> str | None:
    """The path of the model card; None if there is none."""
    return _CARD if _CARD in present else None


@dataclass(frozen=True)
class _Homes:
    """The folders of the model and its tokenizer: "" or a path with a trailing `/`."""

    model: str
    tokenizer: str


def _homes(present: Collection[str], where: str, text: Text) -> _Homes:
    # Early versions of sentence-transformers wrote another config.json beside modules.json.
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
            f"{where} has no config.json, but has {', '.join(checkpoints[-3:])} of a training run.",
            fix="Name one of them, and download it first if the model is on the Hub; the newest is "
            f"{where.rstrip('/')}/{checkpoints[-1]}",
        )
    refuse_cache(present, where, text)
    raise InputError(
        f"{where} has no config.json, so it is not a Hugging Face checkpoint.",
        fix="Point at the folder that save_pretrained() wrote, or at a model's Hub id.",
    )


def _number(name: str) -> tuple[int, str]:
    digits = name.rpartition("-")[2]
    return (int(digits) if digits.isdecimal() else 0, name)


# The last part of a module's type in modules.json, for modules with a transformer; early versions named it after the
# model's family.
_TRANSFORMERS = ("Transformer", "MLMTransformer", "BERT", "RoBERTa", "DistilBERT", "ALBERT", "CamemBERT", "XLMRoBERTa")


def _transformer_module(modules: str, where: str) -> str:
    """The folder of the transformer module of a sentence-transformers model, from its modules.json."""
    try:
        rows = [(str(row["path"]), str(row["type"]).rpartition(".")[2]) for row in strict_json.loads(modules)]
        paths = [path for path, kind in rows if kind in _TRANSFORMERS]
    except (ValueError, KeyError, TypeError):
        paths = []
    if len(paths) != 1:
        raise InputError(
            f"{where}/{_MODULES} does not list exactly one transformer.",
            fix="Point at the folder of the transformer itself, which has a config.json.",
        )
    if not paths[0]:
        return ""
    refuse_outside(paths[0], where)
    return paths[0].rstrip("/") + "/"


def _side_files(present: Collection[str], home: str) -> dict[str, str]:
    return {name: home + name for name in SIDE_FILES if home + name in present}


def _weights(home: str, present: Collection[str], where: str, text: Text, pickles: bool) -> list[str]:
    """The weight files, with their index if they have one: those that transformers' from_pretrained loads from a folder
    (`_get_resolved_checkpoint_files` in its modeling_utils.py). A single file has priority over an index, which may be
    left over from an older save, and safetensors over pickles. Raises InputError if there are no usable ones."""
    indices = {WEIGHTS: INDEX, **({PICKLE: PICKLE_INDEX} if pickles else {})}
    for single, index in indices.items():
        if home + single in present:
            return [single]
        if home + index in present:
            parts = shards(text(home + index), f"{where}/{home}{index}", PurePosixPath(single).suffix)
            if absent := [part for part in parts if home + part not in present]:
                raise InputError(
                    f"{where} lacks {absent[0]}, which its index of weights names.",
                    f"It was not copied completely, or {index} is left over from an older save.",
                    "Copy the missing shards, save the model again, or name another revision.",
                )
            return [index, *parts]
    raise InputError(f"{where} has no model.safetensors.", *why_none(present, pickles))


def _has_weights(present: Collection[str]) -> bool:
    """Whether a model's weights are at the root (an adapter's are not)."""
    return any(name in present for name in (WEIGHTS, INDEX, PICKLE, PICKLE_INDEX))


def shards(index: str, where: str, suffix: str = ".safetensors") -> list[str]:
    """The weight files that an index (its JSON text) names, sorted. Raises InputError if it is not an index, or names a
    file outside of the folder or without the `suffix`."""
    try:
        names = sorted(set(strict_json.loads(index)["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError):
        names = []
    if not names:
        raise InputError(
            f"{where} is not an index of weights: it has no weight_map.",
            fix="Copy it again, or save the model again.",
        )
    for name in names:
        path = PurePosixPath(str(name))
        if path.is_absolute() or ".." in path.parts or path.suffix != suffix or not str(name).isprintable():
            raise InputError(
                f"{where} names {name!r}, which is not a {suffix} file in this folder.",
                fix="Do not use it unless you know who wrote that name; save the model again.",
            )
    return names


def _adapter(present: Collection[str], where: str, text: Text, pickles: bool) -> Selection:
    config = read_object(text(ADAPTER_CONFIG), ADAPTER_CONFIG, where)
    base, revision = config.get("base_model_name_or_path"), config.get("revision")
    if config.get("megatron_config"):
        # peft would import any module that its config names for them.
        raise InputError(
            f"{where} is an adapter for Megatron's layers, which transformers' models do not have.",
            fix="Train one for the layers of a transformers model.",
        )
    weights = next((name for name in (ADAPTER_WEIGHTS, _ADAPTER_PICKLE) if name in present), None)
    if weights is None or (weights.endswith(".bin") and not pickles):
        raise InputError(f"{where} is an adapter without adapter_model.safetensors.", *why_none(present, pickles))
    files = {f"{ADAPTER}/{name}": name for name in (ADAPTER_CONFIG, weights)}
    side = _side_files(present, "")
    return Selection(
        files={**files, **(side if has_vocabulary(side) else {})},
        base=Base(name=base if isinstance(base, str) else "", revision=revision if isinstance(revision, str) else None),
    )
