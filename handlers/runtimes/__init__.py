"""Runtimes: what runs the model. Each has `load(model_dir, config, device, pad, task)`, `config` being
model-config.yaml's contents, whose result offers `run(batch) -> outputs` for encoders, `generate(rows, batch, pad,
over)` for decoders, `batches(lengths, most)`: which inputs are to go together, `most` tokens at once, `notes`: settings
that have no effect on this model, a line each, and `unexplained`: why it cannot explain its answers, if it cannot (else
it has the `model`)."""

from __future__ import annotations

from typing import Any, NamedTuple


class Task(NamedTuple):
    """What a handler answers: the task's `name`, as `schema` has it, transformers' class of its models and those of
    their `outputs` that count, whether these have something for each token, and whether they are the next token's."""

    name: str
    auto_class: str
    outputs: tuple[str, ...] = ("logits",)
    per_token: bool = True
    generates: bool = False


CHIPS = {
    "neuron": ("torch_neuron", "torch-neuron", "Inf1"),
    "neuronx": ("torch_neuronx", "torch-neuronx", "Inf2 or Trn1"),
}
"""Hardware whose graphs have a runtime of their own: its package, the package's distribution, and the machines."""


def named(settings: dict[str, Any]) -> str:
    """The module of the runtime that a model's settings ask for."""
    return "neuron" if settings.get("hardware") in CHIPS else str(settings["save_mode"])


def workers(config: dict[str, Any]) -> int:
    """The most processes of this model that a server starts on this machine."""
    return max(int(config.get("maxWorkers") or 1), int(config.get("minWorkers") or 1))


def shares_weights(config: dict[str, Any]) -> bool:
    """Whether a worker is to leave the weights in the file that all of them map, and not lay out a copy of its own."""
    packs = (config.get("handler") or {}).get("pack_weights")
    return workers(config) > 1 if packs is None else not packs
