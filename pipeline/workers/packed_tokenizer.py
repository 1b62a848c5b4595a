"""Worker side: the tokenizer that an archive serves, which is the one that transformers' AutoTokenizer loads.

Some settings are in tokenizer_config.json or in the tokenizer's class alone: they change the steps of tokenizer.json
(strip_accents, add_prefix_space, add_eos_token), or what transformers does beside it (truncation_side, the words of a
chat template). So tokenizer.json is AutoTokenizer's own, and SETTINGS has the rest.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..handlers.protocol.tokenizer_settings import SETTINGS
from . import loading
from .bounded import bounded

if TYPE_CHECKING:
    from ..portable.protocol import Report


def pack(job: dict[str, Any], report: Report) -> dict[str, Any]:
    """Write the tokenizer of the job's `checkpoint` to the folder `out`: tokenizer.json and SETTINGS, whose contents
    are returned. A tokenizer.json of the checkpoint is copied as it is, unless AutoTokenizer's has other steps."""
    import transformers

    report("reading the tokenizer", 0, None)
    own = loading.tokenizer(job["checkpoint"], trust_remote_code=bool(job.get("trust_remote_code")))
    report("tokenizing short texts", 0, None)
    out, file = Path(job["out"]), Path(job["checkpoint"]) / "tokenizer.json"
    _try_texts(own)
    report("rendering a short conversation by the chat template", 0, None)
    _try_chat(own)
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


_SECONDS, _MEMORY = 10, 2 << 30
"""The most for a few short texts, which take milliseconds and kilobytes."""

_TEXTS = (
    "Where does the baker work?",
    " ".join(f"Box {box} came at {box} o'clock." for box in range(8)),
    "a" * 200,
    " \n\t  (1,234.50) -- [x] {y}; #tag @name https://example.org/?q=1&r=2",
    "Größe: 漢字かな한국어 العربية עברית हिन्दी 👩‍🔬🇪🇺 e\u0301",
)
_TALK = [{"role": "user", "content": "Where does the baker work?"}]
_LONGEST_PROMPT = 1_000_000
"""Characters of a rendered conversation of a line."""


def _try_texts(own: Any) -> None:
    """Tokenize short texts: patterns in a tokenizer's files may take forever, or all memory. Raises InputError."""
    with _enough_memory("the tokenizer"), bounded(_SECONDS, _MEMORY):
        for text in _TEXTS:
            with _whatever():
                own.decode(own(text, verbose=False)["input_ids"])


def _try_chat(own: Any) -> None:
    """Render a short conversation by the chat template, if there is one. Raises InputError."""
    if not own.chat_template:
        return
    written = ""
    with _enough_memory("the chat template"), bounded(_SECONDS, _MEMORY // 8), _whatever():
        written = str(own.apply_chat_template(_TALK, tokenize=False, add_generation_prompt=True))
    if len(written) > _LONGEST_PROMPT:
        raise _excessive("the chat template", f"{len(written):,} characters of a line")


@contextmanager
def _whatever() -> Iterator[None]:
    """Ignore all errors but a lack of memory: a tokenizer or a template may refuse a text."""
    try:
        yield
    except MemoryError:
        raise
    except Exception:  # noqa: S110 - verify finds out
        pass


@contextmanager
def _enough_memory(what: str) -> Iterator[None]:
    try:
        yield
    except MemoryError:
        raise _excessive(what, "too much of a line") from None


def _excessive(what: str, much: str) -> InputError:
    return InputError(
        f"The model's files cannot be used: {what} makes {much}.",
        "A pattern, a normalizer or the template in its files multiplies a text.",
        "Restore tokenizer.json and the chat template from the model's source, or save the tokenizer again.",
    )


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

    try:
        reader = Tokenizer.from_buffer(text)
    except Exception as error:  # the package raises plain Exception
        raise InputError(
            f"tokenizer.json cannot be read: {error}.",
            "It is damaged, or was written by a newer release of tokenizers; transformers made do without it.",
            "Restore it from the model's source, or save the tokenizer again with save_pretrained().",
        ) from None
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
