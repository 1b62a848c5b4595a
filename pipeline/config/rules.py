"""Rules between a config's settings: which contradict each other, which follow from others, which have no effect."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ..handlers.protocol import requests
from ..handlers.protocol.problem import Problem
from ..host.chips import CHIPS
from ..tasks import TASKS, Task
from ..tasks import find as find_task
from .settings import DEFAULT_LENGTH_LIMIT, ConfigFile, HandlerSettings
from .values import COMPILED

TASK_SETTINGS = {
    name: tuple(task.name for task in TASKS.values() if name in task.settings)
    for name in dict.fromkeys(name for task in TASKS.values() for name in task.settings)
}
"""Setting of `handler:` that only some tasks have -> those tasks."""

Problems = Iterator[tuple[str, str]]
"""The dotted key of each problem, and its message."""


def conflicts(config: ConfigFile, given: Callable[[str], bool]) -> Problems:
    """The settings that are valid alone but contradict each other. `given`: whether the user set a (dotted) key."""
    yield from _frontend(config)
    yield from _hardware(config, given)
    yield from _compiled(config, given)
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
        instead = "leave it out" if config.handler.hardware in COMPILED else _on_a_gpu(config)
        yield "deviceIds", f"chooses GPUs, but the model is not served on one; {instead}"
    if config.pt2 and config.pt2.compile and config.pt2.compile.mode and config.pt2.compile.options:
        yield "pt2.compile.options", "torch.compile takes mode or options, not both"
    mode, other = config.handler.mode, config.handler.task
    if mode and other and find_task(mode) is not find_task(other):
        yield "handler.task", f"{other} contradicts handler.mode: {mode}; keep one of them"


def _hardware(config: ConfigFile, given: Callable[[str], bool]) -> Problems:
    handler = config.handler
    if config.deviceType and given("handler.hardware") and config.deviceType != _device_of(handler):
        yield "deviceType", f"{config.deviceType} contradicts handler.hardware: {handler.hardware}; keep one of them"
    if isinstance(handler.max_length, list) and handler.hardware not in COMPILED:
        yield (
            "handler.max_length",
            "a list of lengths is for Inferentia, where each is compiled; give the longest",
        )
    if _device(config) == "gpu" or handler.hardware in COMPILED:
        return
    if handler.dtype == "float16":
        yield "handler.dtype", f"float16 is slow or missing on a CPU; use bfloat16 or float32, or {_on_a_gpu(config)}"
    if handler.attn_implementation == "flash_attention_2":
        yield "handler.attn_implementation", f"flash_attention_2 needs a GPU; use sdpa, or {_on_a_gpu(config)}"


def _on_a_gpu(config: ConfigFile) -> str:
    """What to set so that the model is served on a GPU."""
    return f"set handler.hardware: gpu{' and leave deviceType out' if config.deviceType else ''}"


def _compiled(config: ConfigFile, given: Callable[[str], bool]) -> Problems:
    """Settings that contradict a graph compiled for Inferentia."""
    handler, hardware = config.handler, config.hardware
    if handler.hardware not in COMPILED:
        return
    task = task_of(handler)
    if task is not None and task.generates:
        yield (
            "handler.hardware",
            f"{handler.hardware} does not support {task.name}: a compiled graph has one length, and a text grows "
            "token by token; set handler.hardware: cpu or gpu, or use NxD Inference on Inf2 and Trn1 "
            "(docs/how-to/inferentia.md)",
        )
    if handler.dtype == "float16":
        yield (
            "handler.dtype",
            "the compiler does not take float16; set handler.dtype: bfloat16, or float32 and hardware.auto_cast: all",
        )
    if handler.attn_implementation in ("flash_attention_2", "flex_attention"):
        yield "handler.attn_implementation", f"{handler.attn_implementation} cannot be compiled; use eager or sdpa"
    if given("batchSize") and handler.batch_size not in (None, config.batchSize):
        yield "handler.batch_size", f"{handler.batch_size} contradicts batchSize: {config.batchSize}; keep one of them"
    if batch_of(config) % hardware.data_parallel:
        yield (
            "hardware.data_parallel",
            f"a batch of {batch_of(config)} cannot be spread evenly over {hardware.data_parallel} NeuronCores",
        )
    if handler.hardware == "neuron":
        for name in ("target", "auto_cast_type", "cpu_backend", "async_load", "lazy_load"):
            if given(f"hardware.{name}"):
                yield f"hardware.{name}", "is for handler.hardware: neuronx; Inf1's package does not have it"
    elif hardware.auto_cast_type and hardware.casts == "none":
        yield "hardware.auto_cast_type", "needs a cast; set hardware.auto_cast: matmul or all"
    workers, cores = config.maxWorkers or config.minWorkers or 1, cores_of(config)
    if workers * hardware.data_parallel > cores:
        key = "maxWorkers" if config.maxWorkers else "minWorkers" if config.minWorkers else "hardware.data_parallel"
        each = (
            f"each on {hardware.data_parallel} NeuronCores" if hardware.data_parallel > 1 else "each on its NeuronCore"
        )
        whose = "" if given("hardware.cores") else ", the smallest machine's"
        yield key, f"{workers} workers, {each}, are more than hardware.cores: {cores}{whose}"


def _torchscript(config: ConfigFile) -> Problems:
    handler = config.handler
    if handler.save_mode != "torchscript" or handler.hardware in COMPILED:
        return
    instead = "use handler.save_mode: pretrained, or leave this out"
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
            hint = "; use handler.generation.top_k" if name == "top_k" and task.generates else ""
            yield f"handler.{name}", f"is for {' and '.join(tasks)}, not for {task.name}{hint}"
    if task.labelled:
        number = len(handler.labels) if handler.labels else handler.num_labels
        if handler.labels and handler.num_labels and handler.num_labels != number:
            yield "handler.num_labels", f"is {handler.num_labels}, but handler.labels has {number} names"
        if number and handler.top_k and handler.top_k > number and task.name in TASK_SETTINGS["top_k"]:
            yield "handler.top_k", f"is {handler.top_k}, but there are {number} labels"
    for index, sample in enumerate(config.verify.samples or []):
        try:
            if requests.parse({"body": sample}, task.name).form == "tensors":
                raise Problem("give its texts directly, not as KServe's tensors")
        except Problem as problem:
            where = f" ({problem.field})" if problem.field else ""
            yield f"verify.samples.{index}", f"is not a request for {task.name}: {problem.message}{where}"


def batch_of(config: ConfigFile) -> int:
    """Rows of a compiled graph's batch, over all the cores of a worker."""
    given = "batchSize" in config.model_fields_set
    return config.batchSize if given else config.handler.batch_size or config.batchSize


def cores_of(config: ConfigFile) -> int:
    """NeuronCores of all the model's workers together."""
    return config.hardware.cores or CHIPS[config.handler.hardware].cores


def _lengths(handler: HandlerSettings) -> Problems:
    limit = handler.longest or DEFAULT_LENGTH_LIMIT
    bound = f"max_length, {limit}" if handler.max_length else f"the default max_length, {limit}"
    new = handler.generation.max_new_tokens if handler.generation else None
    for name, value in (
        ("stride", handler.stride),
        ("max_answer_length", handler.max_answer_length),
        ("generation.max_new_tokens", new),
    ):
        if value is not None and value >= limit:
            yield f"handler.{name}", f"{value} must be less than {bound}"


def _device(config: ConfigFile) -> str:
    return config.deviceType or _device_of(config.handler)


def _device_of(handler: HandlerSettings) -> str:
    # TorchServe does not know NeuronCores: their workers take CPU tensors.
    return "cpu" if handler.hardware in COMPILED else handler.hardware


_NO_EFFECT_ON_GRAPHS = {
    "save_mode": "torchscript",
    "BetterTransformer": None,
    "model_parallel": False,
    "captum_explanation": False,
    "pack_weights": None,
}
"""The values of these settings for a compiled graph, whatever the config has."""


def settled(config: ConfigFile, task: Task) -> ConfigFile:
    """The config with the values that follow from others filled in: workers, device, mode, labels."""
    device, compiled = _device(config), config.handler.hardware in COMPILED
    handler = config.handler.model_copy(
        update={
            "mode": task.mode,
            "task": task.name,
            "hardware": config.handler.hardware if compiled else device,
            "num_labels": (config.handler.num_labels or None) if task.labelled else None,
            **(_NO_EFFECT_ON_GRAPHS if compiled else {}),
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
        **({"batchSize": batch_of(config), "pt2": None} if compiled else {}),
    }
    return config.model_copy(update=update)


def without_effect(config: ConfigFile, task: Task) -> Iterator[str]:
    """A note for each setting that has no effect in this config."""
    handler = config.handler
    if handler.embedding_name is not None:
        yield "handler.embedding_name has no effect: transformers finds the embeddings (get_input_embeddings())."
    if handler.hardware in COMPILED:
        yield from _without_effect_on_graphs(config)
        return
    if "hardware" in config.model_fields_set:
        yield f"The section hardware has no effect on a {_device(config).upper()}: it configures Inferentia's compiler."
    if handler.batch_size is not None:
        yield (
            f"handler.batch_size has no effect on a {_device(config).upper()}: only graphs for Inferentia have a fixed "
            "batch; set batchSize at the top of the file."
        )
    compiled = bool(config.pt2 and config.pt2.compile and config.pt2.compile.enable)
    if handler.BetterTransformer and task.generates:
        yield f"handler.BetterTransformer has no effect for {task.name}: it is for encoders."
    elif handler.BetterTransformer and compiled:
        yield "handler.BetterTransformer has no effect with pt2.compile: the model is compiled as it is."
    if handler.pack_weights and (compiled or _device(config) == "gpu" or handler.dtype == "bfloat16"):
        yield "handler.pack_weights has no effect here: it is for models in float32 on a CPU, not compiled."
    if handler.captum_explanation and handler.save_mode == "torchscript":
        yield (
            "handler.captum_explanation has no effect with handler.save_mode: torchscript: explanations "
            "need the model's own embeddings, which a traced graph hides."
        )
    if handler.model_parallel and _device(config) == "cpu":
        yield "handler.model_parallel has no effect on a CPU: it spreads a model over GPUs."
    if handler.num_labels and not task.labelled:
        yield f"handler.num_labels has no effect for {task.name}, which has no labels."


def _without_effect_on_graphs(config: ConfigFile) -> Iterator[str]:
    handler = config.handler
    ignored = [
        f"handler.{name}"
        for name in ("BetterTransformer", "model_parallel", "captum_explanation", "pack_weights")
        if getattr(handler, name)
    ]
    if "save_mode" in handler.model_fields_set and handler.save_mode != "torchscript":
        ignored.append(f"handler.save_mode: {handler.save_mode}")
    if config.pt2 and config.pt2.compile and config.pt2.compile.enable:
        ignored.append("pt2.compile")
    for name in ignored:
        yield f"{name} has no effect with handler.hardware: {handler.hardware}: the model becomes a compiled graph."
