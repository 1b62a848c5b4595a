"""Worker side: sample requests that fit a model, measured by its tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError

if TYPE_CHECKING:
    from ..portable.protocol import Report

_CHARACTERS = 100
"""The characters for each token of a sample after which it is not made longer. Words have some five letters; a
tokenizer without a step that splits gives one token for any text."""


def fitting(job: dict[str, Any], report: Report) -> list[Any]:
    """The job's `samples`, cut by words until their `fields` fit into `limit` tokens by the tokenizer.json in `folder`;
    and for each number in `long` a copy of the first sample with more tokens than that in its last field. With `cut`
    these are cut to fit into as many. Raises InputError if the tokenizer cannot be read, or rejects a sample."""
    report("tokenizing the sample requests", 0, None)
    from tokenizers import Tokenizer

    fields, limit = job["fields"], job["limit"]
    try:
        tokenizer = Tokenizer.from_file(str(Path(job["folder"], "tokenizer.json")))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        short = [_fitting(dict(sample), fields, tokenizer, limit) for sample in job["samples"]]
        longer = [_long(short[0], fields[-1], tokenizer, size) for size in job["long"]]
        if job["cut"]:
            longer = [_fitting(one, fields, tokenizer, size) for one, size in zip(longer, job["long"], strict=True)]
        return short + longer
    except Exception as error:  # the package raises plain Exception
        raise InputError(
            f"tokenizer.json cannot be used: {error}.",
            "It is damaged, or lacks a token that it needs, such as the one for unknown words.",
            "Save the tokenizer again with save_pretrained().",
        ) from None


def _long(sample: dict[str, Any], field: str, tokenizer: Any, size: int) -> dict[str, Any]:
    """A sample with more than `size` tokens in `field`, no two parts alike: it is cut, or read in windows."""
    text, number = sample[field], 1
    while len(text) <= _CHARACTERS * size and len(tokenizer.encode(text)) <= size:
        more = " ".join(f"Box {box} came at {box % 24} o'clock." for box in range(number, number + 20))
        text, number = f"{text} {more}", number + 20
    return {**sample, field: text}


def _fitting(sample: dict[str, Any], fields: list[str], tokenizer: Any, limit: int) -> dict[str, Any]:
    def size() -> int:
        return len(tokenizer.encode(*(sample[name] for name in fields)))

    if "parameters" in sample:
        # Half of a short model's room for the prompt, half for what it writes.
        parameters = dict(sample["parameters"])
        parameters["max_new_tokens"] = max(1, min(parameters["max_new_tokens"], limit // 2))
        sample["parameters"] = parameters
        limit -= parameters["max_new_tokens"]
    for name in reversed(fields):
        while size() > limit and " " in sample[name]:
            sample[name] = sample[name].rsplit(" ", 1)[0]
    return sample
