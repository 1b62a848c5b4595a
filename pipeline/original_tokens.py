"""Worker side: what the original's tokenizer and chat template make of a corpus (`same_tokens.asked`)."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from . import loading
from .local import at_noon
from .same_tokens import PARTS
from .tokenizer_files import set_lower_case


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
    "talks": the [prompt, ids] of each, "class": the tokenizer's, "parts": the JSON of its steps by name}. None for what
    it has no answer to, be it that its tokenizer or template refuses it, or that the model has no such ids."""
    return {**_ids(auto, job["corpus"], model.get_input_embeddings().weight.shape[0]), **_steps(auto)}


def _steps(one: Any) -> dict[str, Any]:
    parts = {name: getattr(getattr(one, "backend_tokenizer", None), name, None) for name in PARTS}
    states = {name: json.loads(part.__getstate__()) if part is not None else None for name, part in parts.items()}
    return {"class": type(one).__name__, "parts": states}


def _ids(one: Any, corpus: dict[str, Any], rows: int) -> dict[str, list[Any]]:
    """By a tokenizer, for a model with that many rows of embeddings."""
    from transformers.utils import chat_template_utils

    cut = {"truncation": True, "max_length": corpus["max_length"]} if corpus["max_length"] else {"truncation": False}

    def ids(*text: str, special: bool = True) -> list[int] | None:
        # In lists, since an empty second text would count as none.
        texts = [[each] for each in text]
        try:
            found = list(one(*texts, add_special_tokens=special, verbose=False, **cut)["input_ids"][0])
        except Exception:  # what a tokenizer raises for a text that it cannot take
            return None
        return found if max(found, default=0) < rows else None

    def rendered(talk: Any) -> list[Any] | None:
        try:
            prompt = one.apply_chat_template(talk, tokenize=False, add_generation_prompt=True)
        except Exception:  # what a template raises can be anything, and without one there is a ValueError
            return None
        found = ids(prompt, special=False)
        return None if found is None else [prompt, found]

    with at_noon(chat_template_utils):
        talks = [rendered(talk) for talk in corpus["talks"]]
    return {
        "texts": [ids(text) for text in corpus["texts"]],
        "pairs": [ids(*pair) for pair in corpus["pairs"]],
        "talks": talks,
    }
