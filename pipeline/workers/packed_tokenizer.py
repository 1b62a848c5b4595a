"""Worker side: the tokenizer that an archive serves, which is the one that transformers' AutoTokenizer loads.

Some settings are in tokenizer_config.json or in the tokenizer's class alone: they change the steps of tokenizer.json
(strip_accents, add_prefix_space, add_eos_token), or what transformers does beside it (truncation_side, the words of a
chat template). So tokenizer.json is AutoTokenizer's own, and SETTINGS has the rest.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..handlers.protocol.tokenizer_settings import SETTINGS
from . import loading

if TYPE_CHECKING:
    from ..portable.protocol import Report


def pack(job: dict[str, Any], report: Report) -> dict[str, Any]:
    """Write the tokenizer of the job's `checkpoint` to the folder `out`: tokenizer.json and SETTINGS, whose contents
    are returned. A tokenizer.json of the checkpoint is copied as it is, unless AutoTokenizer's has other steps."""
    import transformers

    report("reading the tokenizer", 0, None)
    own = loading.tokenizer(job["checkpoint"], trust_remote_code=bool(job.get("trust_remote_code")))
    out, file = Path(job["out"]), Path(job["checkpoint"]) / "tokenizer.json"
    text, stated = _backend(own), file.read_bytes() if file.exists() else b""
    rewritten = _differing(stated, text) if stated else []
    (out / "tokenizer.json").write_bytes(text if rewritten or not stated else stated)
    template = own.chat_template
    settings = {
        "follows": f"transformers {transformers.__version__}",
        "class": type(own).__name__,
        "rewritten": rewritten,
        "special_tokens": own.special_tokens_map,
        "model_input_names": list(own.model_input_names),
        "truncation_side": own.truncation_side,
        "split_special_tokens": bool(getattr(own, "split_special_tokens", False)),
        "clean_up_tokenization_spaces": _cleans_up(own),
        "chat_template": (template.get("default") if isinstance(template, dict) else template) or None,
    }
    (out / SETTINGS).write_text(
        json.dumps(settings, ensure_ascii=False, indent=2, sort_keys=True) + "\n", encoding="utf-8"
    )
    return settings


def _backend(own: Any) -> bytes:
    """A tokenizer's tokenizer.json."""
    try:
        return str(own.backend_tokenizer.to_str(pretty=True)).encode()
    except Exception as error:  # a tokenizer without a backend, or one with steps in Python
        raise InputError(
            f"{type(own).__name__} has no tokenizer.json form, so the archive's handler could not tokenize.",
            "Its class, or a step of it, is written in Python.",
            "Save the model with a fast tokenizer: AutoTokenizer.from_pretrained(..., use_fast=True).",
        ) from error


def _differing(stated: bytes, own: bytes) -> list[str]:
    """The parts of two tokenizer.json that differ, as the package `tokenizers` reads both. The defaults for truncation
    and padding do not count: whoever tokenizes sets them."""
    one, other = (_parts(text) for text in (stated, own))
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


def _parts(text: bytes) -> dict[str, Any]:
    from tokenizers import Tokenizer

    reader = Tokenizer.from_buffer(text)
    reader.no_padding()
    reader.no_truncation()
    return dict(json.loads(reader.to_str()))


def _cleans_up(own: Any) -> bool:
    """Whether transformers removes the spaces before punctuation from a decoded text. Version 5 does so if the setting
    says so, but never for BPE unless another setting insists; in version 4, the text generation pipeline does so unless
    the setting forbids it."""
    import transformers

    name = "clean_up_tokenization_spaces"
    insists = f"{name}_for_bpe_even_though_it_will_corrupt_output"
    if int(transformers.__version__.split(".")[0]) < 5:
        return own.init_kwargs.get(name) is not False
    bpe = type(own.backend_tokenizer.model).__name__ == "BPE"
    return bool(getattr(own, name) and (not bpe or getattr(own, insists)))
