"""Checkpoints: the names of their files, and the contents of config.json."""

from __future__ import annotations

import os
from collections.abc import Collection
from math import prod
from pathlib import Path
from typing import IO, Any

from ..errors import InputError
from ..files import pointers, strict_json
from ..files.opening import LARGEST_JSON, opened, read_text
from ..tasks import TASKS, Task
from .lengths import stretched

CONFIG = "config.json"
GENERATION = "generation_config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"

# The tokenizers' files, as transformers names them (`VOCAB_FILES_NAMES` of its tokenizers and
# `tokenization_utils_base`), and generation's settings.
SIDE_FILES = (
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "bpe.codes",
    "spiece.model",
    "spm.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
    "chat_template.jinja",
)
SUFFIXES = (".safetensors", ".safetensors.index.json", ".bin", ".bin.index.json")
"""The suffixes of weight files and their indices."""
VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json", "bpe.codes", "*.model")
PICKLES = ("pytorch_model*.bin", "adapter_model.bin", "*.pt", "*.pth", "*.ckpt")
FOREIGN = {
    "tf_model*.h5": "TensorFlow",
    "*.pb": "TensorFlow",
    "flax_model*.msgpack": "Flax",
    "*.onnx": "ONNX",
    "rust_model.ot": "Rust",
    "*.gguf": "llama.cpp",
}
"""Patterns of other frameworks' weight files -> the framework."""


_LARGER = {"tokenizer.json": 1 << 28, INDEX: 1 << 25, "report.json": 1 << 28}
"""The most bytes of JSON files that can be larger than others: with a token, a tensor or an answer in each line."""


def read_json(file: Path) -> dict[str, Any]:
    """The JSON object in a checkpoint's file. Raises InputError if the file does not have one, or is too large."""
    try:
        value = strict_json.loads(read_text(file, _LARGER.get(file.name, LARGEST_JSON)))
    except (ValueError, OSError) as error:
        raise InputError(
            f"{file} cannot be read as JSON: {getattr(error, 'strerror', None) or error}.",
            fix="Restore it, or save the model again.",
        ) from None
    if not isinstance(value, dict):
        raise InputError(f"{file} is not a JSON object.", fix="Restore it, or save the model again.")
    return value


_LONGEST_HEADER = 100_000_000
"""The format's limit of a header, in bytes."""
_MOST_DIMENSIONS = 64
"""torch's limit."""
_BITS = {
    8: ("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"),
    16: ("U16", "I16", "F16", "BF16"),
    32: ("U32", "I32", "F32"),
    64: ("U64", "I64", "F64", "C64"),
    6: ("F6_E2M3", "F6_E3M2"),
    4: ("F4",),
}
"""The bits of a number of each type of the format (safetensors/src/tensor.rs)."""
_SIZES = {name: bits for bits, names in _BITS.items() for name in names}


def header(stream: IO[bytes], size: int | None = None) -> dict[str, Any]:
    """The header of a safetensors file, read from its start: name -> {dtype, shape, data_offsets}, in the order of
    their data (https://github.com/huggingface/safetensors#format). Raises ValueError if it is damaged, or describes a
    file of another `size`."""
    length = int.from_bytes(stream.read(8), "little")
    if size is not None and length > size - 8:
        raise ValueError("its header is longer than the file")
    if not 2 <= length <= _LONGEST_HEADER:
        raise ValueError("its header has an invalid length")
    text, end = stream.read(length), 0
    _refuse_other(text)
    try:
        tensors = strict_json.loads(text.decode())
        tensors.pop("__metadata__", None)
        places = sorted((*one["data_offsets"], name) for name, one in tensors.items())
        for *offsets, name in places:
            if len(offsets) != 2 or not all(map(_is_size, offsets)) or not end == offsets[0] <= offsets[1]:
                raise ValueError("its tensors overlap, or leave gaps")
            _refuse_shape(tensors[name], offsets[1] - end)
            end = offsets[1]
    except (KeyError, TypeError, AttributeError):
        raise ValueError("its header does not list tensors") from None
    if size is not None and 8 + length + end != size:
        raise ValueError(f"it should have {8 + length + end:,} bytes, but has {size:,}")
    return {name: tensors[name] for *_, name in places}


def _refuse_other(text: bytes) -> None:
    """Raises ValueError for a header with far more lists, objects or items than its tensors have: parsed, 100 MB of
    them would take gigabytes. A tensor is an object with two lists; its shape has few numbers."""
    tensors = text.count(b'"dtype"')
    if text.count(b"[") + text.count(b"{") > 4 * tensors + 10_000 or text.count(b",") > 16 * tensors + 100_000:
        raise ValueError("its header does not list tensors")


def _is_size(value: Any) -> bool:
    return type(value) is int and value >= 0


def _refuse_shape(tensor: dict[str, Any], size: int) -> None:
    """Raises ValueError unless a tensor's shape and type make its `size` in bytes."""
    shape, bits = tensor["shape"], _SIZES.get(str(tensor["dtype"]))
    if not isinstance(shape, list) or len(shape) > _MOST_DIMENSIONS or not all(map(_is_size, shape)):
        raise ValueError("its header has a shape that no tensor has")
    numbers = prod(shape)
    # A type that is newer than this program: a number has a bit at least.
    if numbers > 8 * size if bits is None else -(-numbers * bits // 8) != size:
        raise ValueError("its header has a tensor of another size than its shape has")


def tensors(file: Path, name: str) -> dict[str, Any]:
    """The `header` of a safetensors file. Errors show `name` as the file's name. Raises InputError if the file is
    damaged or truncated, or a Git LFS pointer."""
    try:
        with opened(file) as stream:
            return header(stream, os.fstat(stream.fileno()).st_size)
    except ValueError as error:
        with opened(file) as stream:
            pointers.refuse(stream.read(pointers.LONGEST), name)
        raise InputError(
            f"{name} is not a complete safetensors file: {error}.",
            "A download or a copy was cut short.",
            "Fetch the file again.",
        ) from None


def refuse_other_weights(config: bytes, names: Collection[str]) -> None:
    """Raise InputError if config.json (its bytes) names a weight file that is not among the checkpoint's `names`:
    transformers would load that file. Invalid JSON passes: the reader of the other keys reports it."""
    try:
        named = strict_json.loads(config)["transformers_weights"]
    except (ValueError, KeyError, TypeError):
        return
    if named is not None and named not in names:
        raise InputError(
            f"config.json names {str(named)[:80]!r} as the model's weights (transformers_weights), which is not one of "
            f"the files that are packed: {', '.join(name for name in names if name.endswith(SUFFIXES))}.",
            "transformers would load the named file.",
            f"Rename that file to {WEIGHTS}, and remove transformers_weights from config.json.",
        )


def task_of(config: dict[str, Any]) -> Task | None:
    """The task of the checkpoint's head, from `architectures` in its config.json; None if it is not one of ours."""
    for name in architectures(config):
        for task in TASKS.values():
            if name.endswith(task.heads):
                return task
    return None


def architectures(config: dict[str, Any]) -> list[str]:
    """The names of model classes in a config.json."""
    names = config.get("architectures")
    names = [names] if isinstance(names, str) else names
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


# Families whose position embeddings start after pad_token_id (`padding_idx` in their modeling files). OPT's do too, but
# its config does not count those rows.
_BEHIND_PADDING = frozenset(
    ("camembert", "data2vec-text", "ibert", "lilt", "longformer", "luke", "markuplm", "mpnet", "roberta",
     "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod")
)  # fmt: skip


def dtype(config: dict[str, Any]) -> str:
    """The type of its weights, as torch calls it."""
    return str(config.get("dtype", config.get("torch_dtype")) or "float32").removeprefix("torch.")


def positions(config: dict[str, Any], tokenizer_config: dict[str, Any]) -> int | None:
    """The most tokens that the model and its tokenizer take, special tokens included; None if there is no limit."""
    limits = []
    size = config.get("max_position_embeddings") or config.get("n_positions")
    if size:
        # Some count positions from after the padding index, and have extra rows for it: 514 for 512 tokens.
        pad = config.get("pad_token_id")
        spare = (1 if pad is None else int(pad)) + 1
        limits.append(size - spare if config.get("model_type") in _BEHIND_PADDING else stretched(config, size))
    stated = tokenizer_config.get("model_max_length")
    if isinstance(stated, int | float) and not isinstance(stated, bool) and 1 <= stated < 10**9:
        limits.append(int(stated))
    return min(limits) if limits else None
