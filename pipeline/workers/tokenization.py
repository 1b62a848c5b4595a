"""Worker side: the results of the original's tokenizer and chat template for a corpus."""

from __future__ import annotations

import inspect
import json
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ..model.tokenizer import FLAGS, PARTS, set_lower_case
from ..portable.emulator import at_noon
from . import loading


def tokenizer(job: dict[str, Any]) -> Any:
    """AutoTokenizer's tokenizer of a job's `checkpoint`. do_lower_case of the job's `settings` is applied explicitly:
    many tokenizers ignore it."""
    code, lower = bool(job.get("trust_remote_code")), job["settings"].get("do_lower_case")
    own = loading.tokenizer(job["checkpoint"], trust_remote_code=code)
    if lower is None:
        return own
    with TemporaryDirectory() as folder:
        own.save_pretrained(folder)
        set_lower_case(Path(folder), lower)
        return loading.tokenizer(folder)


def expected(job: dict[str, Any], model: Any, auto: Any) -> dict[str, Any]:
    """The results of the original's tokenizer `auto` for the job's `corpus`.

    {"texts", "pairs", "talks": the results for each, None for what the tokenizer or the template rejects, "class": the
    tokenizer's class, "flags" and "parts": those that may differ from an archive's, "beyond": the tokens that the model
    has no embedding for}.

    A result has "ids" (those that the attention mask does not hide), "segments" (None if the tokenizer gives none),
    "special" (1 for a special token), "offsets", "decoded", and for a conversation its "prompt".
    """
    from transformers.utils import chat_template_utils

    corpus = job["corpus"]
    with at_noon(chat_template_utils):
        talks = [_conversation(auto, talk, corpus["max_length"]) for talk in corpus["talks"]]
    return {
        "texts": [_result(auto, [text], corpus["max_length"]) for text in corpus["texts"]],
        "pairs": [_result(auto, pair, corpus["max_length"]) for pair in corpus["pairs"]],
        "talks": talks,
        "class": type(auto).__name__,
        "flags": {name: getattr(auto, name, None) for name in FLAGS},
        "parts": _parts(auto),
        "beyond": _beyond(auto, model),
    }


def _result(auto: Any, texts: Sequence[str], most: int | None, *, special: bool = True) -> dict[str, Any] | None:
    cut = {"truncation": True, "max_length": most} if most else {"truncation": False}
    # As lists: an empty second text would be ignored.
    lists = [[text] for text in texts]
    asked = {"return_offsets_mapping": True, "return_special_tokens_mask": True}
    try:
        encoding = auto(*lists, add_special_tokens=special, verbose=False, **asked, **cut)
    except Exception:  # a tokenizer may raise anything for a text that it rejects
        return None
    ids = list(encoding["input_ids"][0])
    if "attention_mask" in encoding:
        ids = [one for one, shown in zip(ids, encoding["attention_mask"][0], strict=True) if shown]
    return {
        "ids": ids,
        "segments": list(encoding["token_type_ids"][0]) if "token_type_ids" in encoding else None,
        "special": list(encoding["special_tokens_mask"][0]),
        "offsets": [list(place) for place in encoding["offset_mapping"][0]],
        "decoded": decoded(auto, ids),
    }


def _conversation(auto: Any, talk: Any, most: int | None) -> dict[str, Any] | None:
    try:
        written = prompt(auto, talk)
    except Exception:  # a template may raise anything; without one, a ValueError
        return None
    result = _result(auto, [written], most, special=False)
    # Handlers treat an empty template, which renders nothing, as missing.
    return None if result is None or not written else {"prompt": written, **result}


def prompt(auto: Any, messages: list[dict[str, Any]]) -> str:
    """A conversation as transformers' text generation pipeline renders it (`preprocess`): the model continues a last
    message of the assistant."""
    continued = messages[-1]["role"] == "assistant"
    written = auto.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=not continued, continue_final_message=continued
    )
    return str(written)


def decoded(auto: Any, ids: Sequence[int]) -> str:
    """A text as transformers' text generation pipeline decodes it (`postprocess`): whether the spaces before
    punctuation are removed is the tokenizer's setting, or the pipeline's default."""
    from transformers import TextGenerationPipeline

    name = "clean_up_tokenization_spaces"
    default = inspect.signature(TextGenerationPipeline.postprocess).parameters[name].default
    own = auto.init_kwargs.get(name)
    return str(auto.decode(ids, skip_special_tokens=True, **{name: default if own is None else own}))


def _parts(auto: Any) -> dict[str, Any]:
    parts = {name: getattr(auto.backend_tokenizer, name) for name in PARTS}
    states = {name: json.loads(part.__getstate__()) if part is not None else None for name, part in parts.items()}
    return states | {"added_tokens": {str(index): repr(token) for index, token in auto.added_tokens_decoder.items()}}


def _beyond(auto: Any, model: Any) -> list[str]:
    """The tokens whose ids the model has no input embedding for. Empty if their number is unknown, as it may be for a
    model's own code."""
    try:
        rows = int(model.get_input_embeddings().weight.shape[0])
    except (NotImplementedError, AttributeError):
        return []
    return sorted(token for token, index in auto.get_vocab().items() if index >= rows)
