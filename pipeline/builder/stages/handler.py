"""Handler: what the server runs and reads beside the model. Handler files, setup config, labels, samples, schema."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from typing import Any

from ...config import build_config as configs
from ...errors import InputError
from ...files.tree import Entry, text_digest
from ...tasks import TASKS
from .. import resolve
from ..stage import Build, Job, Stage


def _sources(build: Build) -> dict[str, str]:
    """Archive path -> source text: the task's handler at the root, the shared modules in `handlers/`."""
    found = {}
    for path, file in resolve.handler_sources().items():
        text = file.read_text(encoding="utf-8")
        if path == f"{build.config.task.name}.py":
            found[path] = text
        elif path.removesuffix(".py") not in TASKS:
            found[f"handlers/{path}"] = text
    return found


def settings(build: Build) -> dict[str, Any]:
    """The `handler:` section that is packed."""
    return configs.packed_handler(build.config, max_length=resolve.max_length(build))


def params(build: Build) -> dict[str, Any]:
    return {
        "task": build.config.task.name,
        "settings": configs.packed(build.config, settings(build)),
        "labels": resolve.labels(build),
        "samples": build.config.verify.samples,
        "handlers": {path: text_digest(text) for path, text in sorted(_sources(build).items())},
    }


def run(job: Job) -> Iterable[Entry]:
    build = job.build
    for path, text in _sources(build).items():
        file = job.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    packed = configs.packed(build.config, settings(build))
    (job.folder / "model-config.yaml").write_text(configs.dump(packed), encoding="utf-8")
    names = resolve.labels(build)
    if names is not None:
        _write(job, "index_to_name.json", {str(index): name for index, name in names.items()})
    _write(job, "samples.json", _samples(job))
    from ...handlers.protocol.schema import schema

    _write(job, "schema.json", schema(build.config.task.name))
    # Two checkpoints could bring a file of one of these names; the archive holds one of each.
    clash = sorted(entry.path for entry in build.trees["serialize"] if (job.folder / entry.path).exists())
    if clash:
        raise InputError(f"The checkpoint holds {', '.join(clash)}, names that the archive needs for its own files.")
    shutil.rmtree(job.folder / "__pycache__", ignore_errors=True)
    return []


def _write(job: Job, name: str, value: Any) -> None:
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    (job.folder / name).write_text(text, encoding="utf-8")


def _samples(job: Job) -> list[Any]:
    """The user's sample requests, or the task's, cut by words until they fit in max_length, and one that does not."""
    build = job.build
    task = build.config.task
    if build.config.verify.samples is not None:
        return [_greedy(sample) if task.name == "text_generation" else sample for sample in build.config.verify.samples]
    from tokenizers import Tokenizer

    file = build.find("serialize", "tokenizer.json")
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # what the package raises for a damaged file
        raise InputError(
            f"tokenizer.json cannot be read: {error}.", fix="Save the tokenizer again with save_pretrained()."
        ) from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    limit = resolve.max_length(build)
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


STAGE = Stage(
    name="handler",
    version=1,
    inputs=("serialize",),
    params=params,
    tools=lambda _build: (),
    run=run,
)
