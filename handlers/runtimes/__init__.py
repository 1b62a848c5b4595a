"""Runtimes: what runs the model. A module here is one runtime, and `named` selects it by the settings.

A runtime module has `load(model_dir, config, device, pad, task)`, which returns the loaded model. `model_dir` is the
unpacked archive, `config` the contents of model-config.yaml, `device` a torch.device, `pad` the id of the padding
token, and `task` a `Task`. It raises an error with a message of one sentence if the model cannot be loaded.

The loaded model has:

- `run(batch)`, for encoders: a forward pass. `batch` has int64 tensors [rows, length] by name (`input_ids`,
  `attention_mask`, `token_type_ids`). It returns the task's `outputs` by name, float32 tensors on the CPU: [rows,
  labels], [rows, length, labels] with `per_token`, or [rows, length] for the start and end of an answer.
- `generate(rows, batch, pad, over)`, for decoders: generates text. `rows` are `inference.generation.Row`s, which choose
  and keep their own tokens; `batch` has their prompts, padded on the left, [rows, length]. It returns when every row
  has finished, or `over()` is true.
- `batches(lengths, most)`: how to batch inputs of these lengths in tokens. It returns lists of indices, one for each
  forward pass of at most `most` tokens; each index is in one list.
- `alone`: whether the answer to a text depends on the other texts, so that each has a run of its own.
- `vocabulary`: the number of tokens that the model has an input embedding for, or None if it is unknown.
- `notes`: a line for each setting that has no effect on this model.
- `unexplained`: why the model cannot explain its answers, or "" if it can. Then it also has `model`, the torch module,
  for the gradients, and `fresh()`, which makes it forget earlier texts.
- `uncompiled()`, optional: a context manager in which the model runs without torch.compile.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class Task(NamedTuple):
    """What runtimes need to know of a task."""

    name: str
    """As `protocol.schema` names it."""
    auto_class: str
    """transformers' Auto class that loads its models."""
    outputs: tuple[str, ...] = ("logits",)
    """The outputs of the model that the handler reads."""
    per_token: bool = True
    """Whether the outputs have a value for each token."""
    generates: bool = False
    """Whether the model generates text."""


CHIPS = {
    "neuron": ("torch_neuron", "torch-neuron", "Inf1"),
    "neuronx": ("torch_neuronx", "torch-neuronx", "Inf2 or Trn1"),
}
"""For each chip that models are compiled for: the package that runs the graphs, its distribution, and the machines."""


def named(settings: dict[str, Any]) -> str:
    """The name of the runtime module for a model's settings."""
    return "neuron" if settings.get("hardware") in CHIPS else str(settings["save_mode"])


def workers(config: dict[str, Any]) -> int:
    """The largest number of worker processes that a server starts for this model."""
    return max(int(config.get("maxWorkers") or 1), int(config.get("minWorkers") or 1))


def shares_weights(config: dict[str, Any]) -> bool:
    """Whether all workers use the weights mapped from the file. If not, each packs its own copy for oneDNN."""
    packs = (config.get("handler") or {}).get("pack_weights")
    return workers(config) > 1 if packs is None else not packs
