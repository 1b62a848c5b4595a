"""Worker side: the results of the original's tokenizer and chat template for a corpus."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ..model.tokenizer import PARTS, set_lower_case
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

    {"texts", "pairs": the ids of each, "talks": the [prompt, ids] of each, "types": the token types of each pair,
    "decoded": the text decoded from the ids of each text, "class": the tokenizer's class, "parts": the JSON of its
    steps by name}. An item is None if the tokenizer or template rejects it, or if the model has no such ids or types.
    """
    return {**_corpus_results(auto, job["corpus"], model), **_steps(auto)}


def _steps(one: Any) -> dict[str, Any]:
    parts = {name: getattr(getattr(one, "backend_tokenizer", None), name, None) for name in PARTS}
    states = {name: json.loads(part.__getstate__()) if part is not None else None for name, part in parts.items()}
    return {"class": type(one).__name__, "parts": states}


def _corpus_results(one: Any, corpus: dict[str, Any], model: Any) -> dict[str, list[Any]]:
    from transformers.utils import chat_template_utils

    cut = {"truncation": True, "max_length": corpus["max_length"]} if corpus["max_length"] else {"truncation": False}
    rows, typed = _rows(model), "token_type_ids" in inspect.signature(model.forward).parameters

    def encoded(*text: str, special: bool = True) -> tuple[list[int] | None, list[int] | None]:
        # As lists: an empty second text would be ignored.
        texts = [[each] for each in text]
        try:
            encoding = one(*texts, add_special_tokens=special, verbose=False, **cut)
            ids = list(encoding["input_ids"][0])
        except Exception:  # a tokenizer may raise anything for a text that it rejects
            return None, None
        if rows is not None and max(ids, default=0) >= rows:
            return None, None
        return ids, list(encoding["token_type_ids"][0]) if typed and "token_type_ids" in encoding else None

    def rendered(talk: Any) -> list[Any] | None:
        try:
            prompt = one.apply_chat_template(talk, tokenize=False, add_generation_prompt=True)
        except Exception:  # a template may raise anything; without one, a ValueError
            return None
        ids, _ = encoded(prompt, special=False)
        # Handlers treat an empty template, which renders nothing, as missing.
        return None if ids is None or not prompt else [prompt, ids]

    def decoded(ids: list[int] | None) -> str | None:
        # Keep spaces: removing them corrupts the text, according to transformers 5 (`_decode`).
        options = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
        return None if ids is None else str(one.decode(ids, **options))

    texts = [encoded(text)[0] for text in corpus["texts"]]
    pairs = [encoded(*pair) for pair in corpus["pairs"]]
    with at_noon(chat_template_utils):
        talks = [rendered(talk) for talk in corpus["talks"]]
    return {
        "texts": texts,
        "pairs": [ids for ids, _ in pairs],
        "talks": talks,
        "types": [types for _, types in pairs],
        "decoded": [decoded(ids) for ids in texts] if corpus["decode"] else [],
    }


def _rows(model: Any) -> int | None:
    """The number of the model's input embeddings; None if it is unknown, as it may be for a model's own code."""
    try:
        return int(model.get_input_embeddings().weight.shape[0])
    except (NotImplementedError, AttributeError):
        return None
