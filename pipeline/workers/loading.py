"""Worker side: loads the original checkpoint with transformers."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..model.checkpoint import CONFIG, read_json
from ..model.selection import ADAPTER
from ..portable.tracing import own_padding
from . import adapter, finite, reasons, untrained
from .model_types import refuse_unknown
from .vocabularies import refuse_damaged, refuse_without_package

if TYPE_CHECKING:
    from ..portable.protocol import Report

SEED = 20_240_601
"""The seed of an untrained head, so that every load gives the same weights."""


def model(job: dict[str, Any]) -> Any:
    """The eager model of a job, in evaluation mode on the CPU, in the job's `dtype`.

    The job has `checkpoint` (a folder), `source` (the folder with all of its files, if transformers is to choose the
    weights among them), `auto_class`, `num_labels` and `labels` or None, `allow_untrained_head`,
    `trust_remote_code`. An adapter is applied to its base model, and with `merge` merged into it. Raises InputError if
    the class does not fit, if the checkpoint lacks weights of the model, or if weights are not finite.
    """
    folder = Path(job["checkpoint"])
    pickles = {file.relative_to(folder).as_posix(): file for file in sorted(folder.rglob("*.bin"))}
    files = {name: _refuse_all_but_tensors(file) for name, file in pickles.items()} | untrained.stored(folder)
    config = _config(job)
    untrained.refuse_huge(read_json(folder / CONFIG), files, lambda: _shapes(_blank(job, config)))
    untrained.refuse_empty(files, lambda: _shapes(_blank(job, config)))
    loaded, info = _from_pretrained(job, config)
    expected = untrained.Expected.of(loaded)
    missing, others = set(info["missing_keys"]), _of_other_shapes(loaded, info, files)
    if (folder / ADAPTER).is_dir():
        loaded, replaced = adapter.apply(loaded, folder / ADAPTER, merge=bool(job.get("merge")))
        missing -= replaced
        others = {name: shapes for name, shapes in others.items() if name not in replaced}
    with reasons.quantized(job):
        untrained.refuse(expected, files, missing - others.keys(), others, head_too=not job["allow_untrained_head"])
    finite.refuse(loaded, str(job.get("dtype")))
    return loaded.eval()


def _code(job: dict[str, Any]) -> dict[str, bool]:
    # Without it, transformers asks on the terminal.
    return {"trust_remote_code": bool(job.get("trust_remote_code"))}


def _config(job: dict[str, Any]) -> Any:
    import transformers

    changes: dict[str, Any] = {}
    if job.get("labels"):
        changes["id2label"] = {int(index): name for index, name in job["labels"].items()}
        changes["label2id"] = {name: int(index) for index, name in job["labels"].items()}
    elif job.get("num_labels"):
        changes["num_labels"] = job["num_labels"]
    if not job.get("trust_remote_code"):
        refuse_unknown(Path(job["checkpoint"]))
    try:
        return transformers.AutoConfig.from_pretrained(
            job["checkpoint"], local_files_only=True, **_code(job), **changes
        )
    except Exception as error:
        reasons.refuse_untrusted(error)
        raise InputError(
            f"transformers {transformers.__version__} cannot read this checkpoint's config.json: "
            f"{reasons.first_line(error)}",
            "A value in it is damaged, or its architecture is newer than the installed transformers.",
            "Correct it, restore the file from the model's source, or upgrade transformers.",
        ) from None


def _from_pretrained(job: dict[str, Any], config: Any) -> tuple[Any, dict[str, Any]]:
    """The model, and transformers' loading info (missing and mismatched keys)."""
    import torch
    import transformers

    dtype = job.get("dtype") or "float32"
    # transformers 5 renamed torch_dtype.
    word = "dtype" if int(transformers.__version__.split(".")[0]) >= 5 else "torch_dtype"
    options: dict[str, Any] = {word: dtype if dtype == "auto" else getattr(torch, dtype)}
    if job.get("attn_implementation"):
        options["attn_implementation"] = job["attn_implementation"]
    torch.manual_seed(SEED)
    with reasons.loading(job):
        result: tuple[Any, dict[str, Any]] = getattr(transformers, job["auto_class"]).from_pretrained(
            job.get("source") or job["checkpoint"],
            config=config,
            local_files_only=True,
            output_loading_info=True,
            # `untrained.refuse` reports mismatched weights by name, less those that an adapter replaces.
            ignore_mismatched_sizes=True,
            weights_only=True,
            **options,
            **_code(job),
        )
    return result


def _blank(job: dict[str, Any], config: Any) -> Any:
    """The model on the meta device: shapes without values."""
    import torch
    import transformers

    with reasons.loading(job), torch.device("meta"):
        return getattr(transformers, job["auto_class"]).from_config(config, **_code(job))


def _shapes(model: Any) -> untrained.Shapes:
    return {name: tuple(weight.shape) for name, weight in model.state_dict().items()}


def _of_other_shapes(loaded: Any, info: dict[str, Any], files: Mapping[str, untrained.Shapes]) -> dict[str, str]:
    """Weights whose shape in the checkpoint differs from the model's, with both shapes as text."""
    by_name, weights = {}, loaded.state_dict()
    stored = {name: shape for shapes in files.values() for name, shape in shapes.items()}
    for key in info["mismatched_keys"]:
        # Before version 5, transformers gives only the names.
        name, shape = (key, stored.get(key)) if isinstance(key, str) else (key[0], key[1])
        prefix = f"{list(shape)} and " if shape is not None else ""
        by_name[name] = f"{prefix}not {list(weights[name].shape)}" if name in weights else f"{prefix}different"
    return by_name


def _refuse_all_but_tensors(file: Path) -> untrained.Shapes:
    """The shapes of a pickle's weights. Raises InputError for a pickle that torch does not load with weights_only, or
    that is not a mapping of names to tensors."""
    import torch

    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 6):
        raise InputError(
            f"{file.name} is a pickle, and torch {torch.__version__} may run its code in spite of weights_only.",
            "This is CVE-2025-32434.",
            "Upgrade torch to 2.6 or newer, or ask whoever made the model for safetensors.",
        )
    try:
        content = torch.load(file, map_location="meta", weights_only=True)
    except Exception as error:  # torch raises anything for a malformed file
        what = re.search(r"GLOBAL (\S+)", str(error))
        if what:
            raise InputError(
                f"{file.name} contains more than tensors: a pickle that calls {what[1]}. It is not loaded.",
                "A pickle can run any code when it is loaded; with weights_only, torch loads only tensors.",
                "Ask whoever made the model for safetensors.",
            ) from None
        raise InputError(
            f"{file.name} cannot be read as pickled tensors (torch.load with weights_only): {type(error).__name__}.",
            "A download or a copy was truncated, or it is a Git LFS pointer or not a weights file.",
            "Fetch the file again (`git lfs pull` in a clone), or ask whoever made the model for safetensors.",
        ) from None
    items = content.items() if isinstance(content, dict) else ()
    shapes = {str(name): tuple(value.shape) for name, value in items if isinstance(value, torch.Tensor)}
    if not shapes:
        within = [name for name, value in items if isinstance(value, dict) and value]
        raise InputError(
            f"{file.name} does not contain weights by name"
            + (f": it has {', '.join(map(repr, within[:4]))}." if within else "."),
            "It is the checkpoint of a training program, with the weights nested in it.",
            "Load the model with that program, and save it with save_pretrained().",
        )
    return shapes


def tokenizer(folder: str | Path, **settings: Any) -> Any:
    """The checkpoint's tokenizer. Raises InputError if transformers cannot load one."""
    import transformers

    settings = {"trust_remote_code": False, **settings}
    if not settings["trust_remote_code"]:
        refuse_unknown(Path(folder))
    try:
        return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, **settings)
    except Exception as error:
        reasons.refuse_untrusted(error)
        if (Path(folder) / CONFIG).exists():
            _config({"checkpoint": str(folder), **_code(settings)})  # which the tokenizer's class is chosen by
        refuse_damaged(Path(folder))
        refuse_without_package(Path(folder))
        raise InputError(
            f"transformers cannot load the tokenizer of this checkpoint: {reasons.first_line(error)}",
            "Its files are incomplete or damaged, or its class needs a package that is not installed.",
            "Save the tokenizer again with save_pretrained(), beside the weights.",
        ) from None


def save(job: dict[str, Any], report: Report) -> list[str]:
    """Load the checkpoint as the task's class and save it: config.json and safetensors. Returns the files written."""
    report("loading the checkpoint", 0, None)
    loaded = model({**job, "merge": True})
    report("saving it in Hugging Face's format", 0, None)
    _write(loaded, job["out"])
    return sorted(file.name for file in Path(job["out"]).iterdir())


def _write(loaded: Any, folder: str) -> None:
    # Nothing reads them, and with most implementations of attention transformers does not save a config that asks.
    loaded.config.output_attentions = False
    loaded.save_pretrained(folder)


def prepare(job: dict[str, Any], report: Report) -> dict[str, Any]:
    """Save the checkpoint as the task's class, for an environment with its own transformers to load. Returns {"inputs":
    the names of the forward arguments, "pad": the padding id, "vocabulary": the number of input embeddings}."""
    report("loading the checkpoint", 0, None)
    loaded = model({**job, "merge": True})
    words = tokenizer(job["checkpoint"], trust_remote_code=bool(job.get("trust_remote_code")))
    pad = padding(loaded, words)
    report("saving it in Hugging Face's format", 0, None)
    _write(loaded, job["out"])
    return {"inputs": encoder_inputs(loaded, words), "pad": pad, "vocabulary": vocabulary(loaded)}


def padding(loaded: Any, words: Any) -> int:
    """The id that handlers pad with (`handlers.text.tokenization`): the model's own, if it has one."""
    ends = getattr(loaded.config, "eos_token_id", None)
    ids = (words.pad_token_id, words.eos_token_id, *(ends if isinstance(ends, list) else [ends]))
    most = vocabulary(loaded) or sys.maxsize
    own = (own_padding(loaded), *ids)
    return next((pad for pad in own if isinstance(pad, int) and 0 <= pad < most), 0)


def vocabulary(loaded: Any) -> int | None:
    """The number of tokens that a model has an input embedding for; None if it is unknown, as it may be for a model's
    own code."""
    try:
        return int(loaded.get_input_embeddings().weight.shape[0])
    except (NotImplementedError, AttributeError):
        return None


def encoder_inputs(loaded: Any, words: Any) -> list[str]:
    """The names of an encoder's input tensors, in the order of a graph's arguments: what its tokenizer returns and its
    forward accepts. RoBERTa's forward accepts token_type_ids, and has one type only."""
    typed = takes(loaded, "token_type_ids") and getattr(loaded.config, "type_vocab_size", None) not in (0, 1)
    types = ["token_type_ids"] if typed and "token_type_ids" in words.model_input_names else []
    return ["input_ids", "attention_mask", *types]


def takes(module: Any, name: str) -> bool:
    """Whether the model's forward has an argument of that name."""
    return name in inspect.signature(module.forward).parameters
