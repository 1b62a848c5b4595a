"""The sample requests of an archive: the user's, or the task's, cut to what the model takes."""

from __future__ import annotations

from typing import Any

from ...errors import InputError
from ...model.lengths import switches
from ...tasks import Task
from .. import resolve
from ..build import Inputs


def samples(inputs: Inputs) -> list[Any]:
    """The user's sample requests, or the task's, cut by words until they fit in max_length, and long ones: at the
    model's limit or beyond it, and beyond the lengths at which it changes."""
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
    limit, config = resolve.max_length(inputs), inputs.read_json("download", "config.json")
    fitting = [_fitting(dict(sample), task.fields, tokenizer, limit) for sample in task.samples]
    points = [point for point in switches(config) if point < limit]
    longest = max([LONGEST, *(point + BEYOND for point in points)])
    field, first = task.fields[-1], fitting[0]
    if not task.generates:
        if limit <= longest:
            return [*fitting, _long(first, field, tokenizer, limit * 3 // 2)]
        return [*fitting, _fitting(_long(first, field, tokenizer, longest), task.fields, tokenizer, longest)]
    new = first["parameters"]["max_new_tokens"]
    lengths = [min(limit, longest)]
    # A text that crosses the last of these lengths while it is written.
    lengths += [points[-1] + new // 2] if points and new < points[-1] < limit - new else []
    return [
        *fitting,
        *(_fitting(_long(first, field, tokenizer, size), task.fields, tokenizer, size) for size in lengths),
    ]


LONGEST = 1024
"""The most tokens of a sample, unless the model computes longer texts otherwise: verifying would take minutes."""

BEYOND = 16
"""The tokens of a sample beyond a length at which a model changes."""


def _long(sample: dict[str, Any], field: str, tokenizer: Any, size: int) -> dict[str, Any]:
    """A sample with more than `size` tokens in `field`, no two parts alike: it is cut, or read in windows."""
    text, number = sample[field], 1
    while len(tokenizer.encode(text)) <= size:
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
