"""Worker side: what the original's tokenizer and chat template make of a corpus (`tokenization.asked`)."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ..model.tokenizer import PARTS, set_lower_case
from ..portable.emulator import at_noon
from . import loading


def tokenizer(job: dict[str, Any]) -> Any:
    """The tokenizer of a job's `checkpoint`, as AutoTokenizer has it. It heeds do_lower_case if the job's `settings`
    have it: many do not by themselves."""
    code, lower = bool(job.get("trust_remote_code")), job["settings"].get("do_lower_case")
    own = loading.tokenizer(job["checkpoint"], trust_remote_code=code)
    if lower is None:
        return own
    with TemporaryDirectory() as folder:
        own.save_pretrained(folder)
        set_lower_case(Path(folder), lower)
        return loading.tokenizer(folder)


def expected(job: dict[str, Any], model: Any, auto: Any) -> dict[str, Any]:
    """What the original makes of the job's `corpus`, by its AutoTokenizer `auto`: {"texts", "pairs": the ids of each,
    "talks": the [prompt, ids] of each, "types": the token types of each pair, "decoded": the ids of each text as text
    again, "class": the tokenizer's, "parts": the JSON of its steps by name}. None for what it has no answer to, be it
    that its tokenizer or template refuses it, or that the model has no such ids or types."""
    return {**_made(auto, job["corpus"], model), **_steps(auto)}


def _steps(one: Any) -> dict[str, Any]:
    parts = {name: getattr(getattr(one, "backend_tokenizer", None), name, None) for name in PARTS}
    states = {name: json.loads(part.__getstate__()) if part is not None else None for name, part in parts.items()}
    return {"class": type(one).__name__, "parts": states}


def _made(one: Any, corpus: dict[str, Any], model: Any) -> dict[str, list[Any]]:
    from transformers.utils import chat_template_utils

    cut = {"truncation": True, "max_length": corpus["max_length"]} if corpus["max_length"] else {"truncation": False}
    rows, typed = _rows(model), loading.takes_token_types(model)

    def encoded(*text: str, special: bool = True) -> tuple[list[int] | None, list[int] | None]:
        # In lists, since an empty second text would count as none.
        texts = [[each] for each in text]
        try:
            found = one(*texts, add_special_tokens=special, verbose=False, **cut)
            ids = list(found["input_ids"][0])
        except Exception:  # what a tokenizer raises for a text that it cannot take
            return None, None
        if rows is not None and max(ids, default=0) >= rows:
            return None, None
        return ids, list(found["token_type_ids"][0]) if typed and "token_type_ids" in found else None

    def rendered(talk: Any) -> list[Any] | None:
        try:
            prompt = one.apply_chat_template(talk, tokenize=False, add_generation_prompt=True)
        except Exception:  # what a template raises can be anything, and without one there is a ValueError
            return None
        found, _ = encoded(prompt, special=False)
        # An empty template writes nothing for any talk, and is none to the handlers.
        return None if found is None or not prompt else [prompt, found]

    def decoded(ids: list[int] | None) -> str | None:
        # Blanks are as they are: transformers 5 says of taking them away that it corrupts the text (`_decode`).
        told = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
        return None if ids is None else str(one.decode(ids, **told))

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
    """How many ids a model has embeddings of; None if it does not tell, as code of its own need not."""
    try:
        return int(model.get_input_embeddings().weight.shape[0])
    except (NotImplementedError, AttributeError):
        return None
