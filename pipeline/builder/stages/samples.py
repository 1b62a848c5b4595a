"""The sample requests of an archive: the user's, or the task's, cut to what the model takes."""

from __future__ import annotations

from typing import Any

from ...errors import InputError
from ...tasks import Task
from .. import resolve
from ..build import Inputs


def samples(inputs: Inputs) -> list[Any]:
    """The user's sample requests, or the task's, cut by words until they fit in max_length, and one that does not."""
    task, own = inputs.config.task, inputs.config.verify.samples
    if own is not None:
        return [_greedy(sample, task) if task.generates else sample for sample in own]
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
    fitting = [_fitting(dict(sample), task.fields, tokenizer, limit) for sample in task.samples]
    if task.generates or limit > LONGEST:
        return fitting
    return [*fitting, _long(fitting[0], task.fields[-1], tokenizer, limit)]


LONGEST = 1024
"""The max_length up to which one sample is longer than the model takes. Above it, verifying would take minutes."""


def _long(sample: dict[str, Any], field: str, tokenizer: Any, limit: int) -> dict[str, Any]:
    """A sample with 1.5 times the tokens that the model takes in `field`, no two parts alike: it is cut, or read in
    windows."""
    text, number = sample[field], 1
    while len(tokenizer.encode(text)) <= limit * 3 // 2:
        more = " ".join(f"Box {box} came at {box % 24} o'clock." for box in range(number, number + 20))
        text, number = f"{text} {more}", number + 20
    return {**sample, field: text}


def _greedy(sample: Any, task: Task) -> Any:
    """A request for text generation without sampling, so that it gives the same text each time."""
    if isinstance(sample, str):
        sample = {task.fields[-1]: sample}
    if "instances" in sample:
        return {**sample, "instances": [_greedy(one, task) for one in sample["instances"]]}
    return {**sample, "parameters": {**sample.get("parameters", {}), "do_sample": False}}


def _fitting(sample: dict[str, Any], fields: tuple[str, ...], tokenizer: Any, limit: int) -> dict[str, Any]:
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
