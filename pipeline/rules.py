"""What the settings of a config must agree on, what follows from them, and which have no effect."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from handlers import requests
from handlers.problem import Problem

from .settings import DEFAULT_LENGTH_LIMIT, ConfigFile, HandlerSettings
from .tasks import Task
from .tasks import find as find_task

# Settings of `handler:` that belong to some tasks only.
TASK_SETTINGS = {
    "labels": ("seq_classification", "token_classification"),
    "top_k": ("seq_classification", "question_answering"),
    "aggregation_strategy": ("token_classification",),
    "stride": ("token_classification", "question_answering"),
    "max_answer_length": ("question_answering",),
    "generation": ("text_generation",),
}

Problems = Iterator[tuple[str, str]]
"""The dotted key that is to blame, and what is wrong with it."""


def conflicts(config: ConfigFile, given: Callable[[str], bool]) -> Problems:
    """Settings that are each right, and cannot be together. `given` tells whether the user set a key."""
    yield from _frontend(config)
    yield from _hardware(config, given)
    yield from _torchscript(config)
    task = task_of(config.handler)
    if task is not None:
        yield from _task(config, task)
    yield from _lengths(config.handler)


def task_of(handler: HandlerSettings) -> Task | None:
    """The task that `mode` or `task` names."""
    word = handler.mode or handler.task
    return find_task(word) if word else None


def _frontend(config: ConfigFile) -> Problems:
    if config.minWorkers and config.maxWorkers and config.minWorkers > config.maxWorkers:
        yield "minWorkers", f"{config.minWorkers} is more than maxWorkers, {config.maxWorkers}"
    if config.deviceIds and _device(config) == "cpu":
        yield "deviceIds", "GPUs are chosen, and the model is served on the CPU; set handler.hardware: gpu"
    if config.pt2 and config.pt2.compile and config.pt2.compile.mode and config.pt2.compile.options:
        yield "pt2.compile.options", "torch.compile takes mode or options, not both"
    mode, other = config.handler.mode, config.handler.task
    if mode and other and find_task(mode) is not find_task(other):
        yield "handler.task", f"{other} is not what handler.mode says, {mode}; keep one of them"


def _hardware(config: ConfigFile, given: Callable[[str], bool]) -> Problems:
    handler = config.handler
    if config.deviceType and given("handler.hardware") and config.deviceType != handler.hardware:
        yield "deviceType", f"{config.deviceType} is not what handler.hardware says, {handler.hardware}"
    if _device(config) == "gpu":
        return
    if handler.dtype == "float16":
        yield (
            "handler.dtype",
            "float16 is slow or missing on a CPU; use bfloat16 or float32, or hardware: gpu",
        )
    if handler.attn_implementation == "flash_attention_2":
        yield "handler.attn_implementation", "flash_attention_2 needs hardware: gpu; use sdpa"


def _torchscript(config: ConfigFile) -> Problems:
    handler = config.handler
    if handler.save_mode != "torchscript":
        return
    instead = "use save_mode: pretrained, or leave it out"
    if handler.model_parallel:
        yield "handler.model_parallel", f"a traced graph cannot be spread over devices; {instead}"
    if handler.BetterTransformer:
        yield "handler.BetterTransformer", f"a traced graph cannot be rewritten; {instead}"
    if config.pt2 and config.pt2.compile and config.pt2.compile.enable:
        yield "pt2.compile", f"torch.compile does not take a traced graph; {instead}"
    if handler.attn_implementation in ("flash_attention_2", "flex_attention"):
        yield (
            "handler.attn_implementation",
            f"{handler.attn_implementation} cannot be traced; use sdpa or eager",
        )


def _task(config: ConfigFile, task: Task) -> Problems:
    handler = config.handler
    for name, tasks in TASK_SETTINGS.items():
        if task.name not in tasks and getattr(handler, name) is not None:
            hint = "; use handler.generation.top_k" if (name, task.name) == ("top_k", "text_generation") else ""
            yield f"handler.{name}", f"is for {' and '.join(tasks)}, not for {task.name}{hint}"
    if task.labelled:
        number = len(handler.labels) if handler.labels else handler.num_labels
        if handler.labels and handler.num_labels and handler.num_labels != number:
            yield "handler.num_labels", f"is {handler.num_labels}, and handler.labels names {number}"
        if number and handler.top_k and handler.top_k > number and task.name in TASK_SETTINGS["top_k"]:
            yield "handler.top_k", f"is {handler.top_k}, and there are {number} labels"
    for index, sample in enumerate(config.verify.samples or []):
        try:
            if requests.parse({"body": sample}, task.name).form == "tensors":
                raise Problem("give its texts as they are, without KServe's tensors")
        except Problem as problem:
            where = f" ({problem.field})" if problem.field else ""
            yield f"verify.samples.{index}", f"is no request for {task.name}: {problem.message}{where}"


def _lengths(handler: HandlerSettings) -> Problems:
    limit = handler.max_length or DEFAULT_LENGTH_LIMIT
    said = f"max_length, {limit}" if handler.max_length else f"what a model takes without max_length, {limit}"
    new = handler.generation.max_new_tokens if handler.generation else None
    for name, value in (
        ("stride", handler.stride),
        ("max_answer_length", handler.max_answer_length),
        ("generation.max_new_tokens", new),
    ):
        if value is not None and value >= limit:
            yield f"handler.{name}", f"{value} must be less than {said}"


def _device(config: ConfigFile) -> str:
    return config.deviceType or config.handler.hardware


def settled(config: ConfigFile, task: Task) -> ConfigFile:
    """The config with everything filled in that follows from what is given: workers, device, mode, labels."""
    device = _device(config)
    handler = config.handler.model_copy(
        update={
            "mode": task.mode,
            "task": task.name,
            "hardware": device,
            "num_labels": (config.handler.num_labels or None) if task.labelled else None,
        }
    )
    least = config.minWorkers or 1
    if config.minWorkers is None and config.maxWorkers is not None:
        least = min(least, config.maxWorkers)
    update = {
        "minWorkers": least,
        "maxWorkers": config.maxWorkers or least,
        "deviceType": device,
        "handler": handler,
    }
    return config.model_copy(update=update)


def without_effect(config: ConfigFile, task: Task) -> Iterator[str]:
    """One line for each setting, of those that the reference example knows, that changes nothing here."""
    handler = config.handler
    if handler.embedding_name is not None:
        yield (
            "handler.embedding_name has no effect: every model tells its embeddings itself (get_input_embeddings())."
        )
    if handler.batch_size is not None:
        yield (
            f"handler.batch_size has no effect with hardware: {_device(config)}: "
            "only Inferentia fixes the batch when it compiles; set batchSize, at the top, instead."
        )
    compiled = bool(config.pt2 and config.pt2.compile and config.pt2.compile.enable)
    if handler.BetterTransformer and task.name == "text_generation":
        yield "handler.BetterTransformer has no effect for text_generation: it is for encoders."
    elif handler.BetterTransformer and compiled:
        yield "handler.BetterTransformer has no effect with pt2.compile: the model is compiled as it is."
    if handler.pack_weights and (compiled or _device(config) == "gpu" or handler.dtype == "bfloat16"):
        yield "handler.pack_weights has no effect here: it is for models in float32 on a CPU, not compiled."
    if handler.captum_explanation and handler.save_mode == "torchscript":
        yield (
            "handler.captum_explanation has no effect with save_mode: torchscript: explanations need the "
            "model's own embeddings, which a traced graph hides."
        )
    if handler.model_parallel and _device(config) == "cpu":
        yield "handler.model_parallel has no effect with hardware: cpu: it spreads a model over GPUs."
    if handler.num_labels and not task.labelled:
        yield f"handler.num_labels has no effect for {task.name}, which has no labels."
