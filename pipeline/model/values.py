"""Values in a checkpoint's settings that decide how it can be loaded, and values that nobody can use."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from typing import Any

from ..errors import InputError
from .checkpoint import CONFIG


def quantization(config: dict[str, Any]) -> str | None:
    """How the weights are quantized, as config.json names it; None if they are not."""
    settings = config.get("quantization_config")
    if not isinstance(settings, dict):
        return None
    is_bits = settings.get("load_in_4bit") or settings.get("load_in_8bit")
    return str(settings.get("quant_method") or ("bitsandbytes" if is_bits else "by an unnamed method"))


ATTENTION = ("_attn_implementation", "attn_implementation", "_attn_implementation_internal")
"""Keys of config.json that choose how attention is computed."""


def attention(config: dict[str, Any]) -> list[str]:
    """The kinds of attention that config.json asks for, and that not every machine or architecture has."""
    inner = (value for value in config.values() if isinstance(value, dict))
    asked = [part.get(key) for part in (config, *inner) for key in ATTENTION]
    return sorted({str(kind) for kind in asked if kind not in (None, "eager", "sdpa")})


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 < value < 10**12


def _is_number(value: Any) -> bool:
    return type(value) is float or (type(value) is int and abs(value) < 2**63)


def _is_token(value: Any) -> bool:
    return type(value) is int and abs(value) < 2**63  # as a tensor holds it


def _is_name(value: Any) -> bool:
    return isinstance(value, str)


def _is_size(value: Any) -> bool:
    # Some families have a list, with the size of each layer.
    return isinstance(value, list) or (type(value) is int and 0 < value <= 10**9)


_SIZES = (
    "hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size", "n_embd", "n_layer", "n_head", "d_model",
    "dim", "n_layers", "n_heads",
)  # fmt: skip

_MODEL: dict[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(_SIZES, (_is_size, "a number from 1 to 1,000,000,000")),
    "max_position_embeddings": (_is_count, "a positive number"),
    "n_positions": (_is_count, "a positive number"),
    "pad_token_id": (_is_token, "the number of a token"),
    "architectures": (lambda value: isinstance(value, list | str), "a list of names"),
    "model_type": (_is_name, "a name"),
    "dtype": (lambda value: isinstance(value, str | dict), "a name"),
    "torch_dtype": (lambda value: isinstance(value, str | dict), "a name"),
    "quantization_config": (lambda value: isinstance(value, dict), "an object"),
}
_GENERATION: dict[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(("temperature", "top_p", "repetition_penalty"), (_is_number, "a number")),
    **dict.fromkeys(("top_k", "max_new_tokens", "max_length"), (_is_token, "a whole number of at most 64 bits")),
    "eos_token_id": (
        lambda value: all(map(_is_token, value)) if isinstance(value, list) else _is_token(value),
        "the number of a token, or a list of them",
    ),
}
"""What this package reads itself from config.json, and from the settings of generation: which values can be used."""


def refuse_strange(settings: dict[str, Any], name: str = CONFIG, *, generates: bool = False) -> None:
    """Raises InputError if the file `name` has values that nobody can use; `generates`: of settings of generation."""
    for key, (is_right, words) in (_GENERATION if generates else _MODEL).items():
        value = settings.get(key)
        if value is not None and not is_right(value):
            raise _strange(key, value, name, words)
    for key, value in settings.items():
        # Infinite ones are fine: Mamba's time_step_limit has no upper end.
        if any(isinstance(each, float) and math.isnan(each) for each in _flat(value)):
            raise _strange(key, value, name, "a number")


_WITH_MORE = ("stop_strings", "penalty_alpha", "dola_layers", "token_healing", "force_words_ids", "constraints")
"""Settings for which transformers' generate() needs the tokenizer, or code from the Hub."""


def refuse_unsupported(settings: dict[str, Any], name: str) -> None:
    """Raises InputError if the settings of generation in the file `name` ask for what no archive can do."""
    asked = [key for key in _WITH_MORE if settings.get(key) not in (None, 0)]
    if asked:
        raise InputError(
            f"The checkpoint's {name} asks for {', '.join(asked)}, which a handler does not do.",
            "transformers needs the tokenizer, or code from the Hub, for that.",
            f"Remove it from {name}; to end texts at certain words, requests have `stop`.",
        )


def _strange(key: str, value: Any, name: str, words: str) -> InputError:
    return InputError(
        f"{key} in the checkpoint's {name} is {json.dumps(value)[:80]}, which is not {words}.",
        "It was edited, or a program wrote it that is not transformers.",
        "Correct it, or restore the file from the model's source.",
    )


def _flat(value: Any) -> Iterator[Any]:
    """The single values in a JSON value."""
    if isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _flat(each)
    else:
        yield value
