"""The sample requests of an archive: the user's, or the task's, cut to what the model takes."""

from __future__ import annotations

from typing import Any

from ...errors import InputError
from .. import resolve
from ..build import Inputs


def samples(inputs: Inputs) -> list[Any]:
    """The user's sample requests, or the task's, cut by words until they fit in max_length, and one that does not."""
    task, own = inputs.config.task, inputs.config.verify.samples
    if own is not None:
        return [_greedy(sample) if task.name == "text_generation" else sample for sample in own]
    from tokenizers import Tokenizer

    file = inputs.find("serialize", "tokenizer.json")
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # what the package raises for a damaged file
        raise InputError(
            f"tokenizer.json cannot be read: {error}.", fix="Save the tokenizer again with save_pretrained()."
        ) from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    limit = resolve.max_length(inputs)
    found = [_fitting(dict(sample), tokenizer, limit) for sample in task.samples]
    return found if task.name == "text_generation" or limit > LONGEST else [*found, _long(found[0], tokenizer, limit)]


LONGEST = 1024
"""Tokens of a model for which a sample is made that is longer still: on more it would take minutes."""


def _long(sample: dict[str, Any], tokenizer: Any, limit: int) -> dict[str, Any]:
    """A sample of half as many tokens again as the model takes, no two parts alike: it is cut, or read in windows."""
    name = "context" if "context" in sample else "text"
    text, number = sample[name], 1
    while len(tokenizer.encode(text)) <= limit * 3 // 2:
        more = " ".join(f"Box {box} came at {box % 24} o'clock." for box in range(number, number + 20))
        text, number = f"{text} {more}", number + 20
    return {**sample, name: text}


def _greedy(sample: Any) -> Any:
    """A request for a text as one that gives the same text twice."""
    if isinstance(sample, str):
        sample = {"prompt": sample}
    if "instances" in sample:
        return {**sample, "instances": [_greedy(one) for one in sample["instances"]]}
    return {**sample, "parameters": {**sample.get("parameters", {}), "do_sample": False}}


def _fitting(sample: dict[str, Any], tokenizer: Any, limit: int) -> dict[str, Any]:
    def size() -> int:
        texts = [sample[name] for name in ("question", "text", "prompt", "context") if name in sample]
        return len(tokenizer.encode(*texts)) if len(texts) < 3 else 0

    if "parameters" in sample:
        # Half of a short model's room for the prompt, half for what it writes.
        parameters = dict(sample["parameters"])
        parameters["max_new_tokens"] = max(1, min(parameters["max_new_tokens"], limit // 2))
        sample["parameters"] = parameters
        limit -= parameters["max_new_tokens"]
    longest = next(name for name in ("context", "text", "prompt") if name in sample)
    while size() > limit and " " in sample[longest]:
        sample[longest] = sample[longest].rsplit(" ", 1)[0]
    if "question" in sample:
        while size() > limit and " " in sample["question"]:
            sample["question"] = sample["question"].rsplit(" ", 1)[0]
    return sample
