"""Explains an answer by its tokens: integrated gradients over the model's input embeddings, by captum.

The importances of a text add up to the difference between the model's output for it (`value`) and for the same text
with padding in place of every ordinary token (`baseline`), except for `delta`, the error of the approximation
(https://arxiv.org/abs/1703.01365).
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import Encoding

from ..protocol.problem import Problem
from .finite import NotFinite
from .pace import Clock, Late, Pace

STEPS = 50
"""The default number of points on the path from the baseline to the text."""

AT_ONCE = 16
"""The most points in one batch; fewer if a run would take too long."""

WORK = 65_536
"""The most tokens times steps of one request, on a fast machine: 50 steps of 1,300 tokens."""

EXPLAINED = 3
"""The cost of a token of a step relative to one of an answer: a step runs the model forward and backward, without the
optimizations for answers."""


@dataclass(frozen=True)
class Target:
    """The part of an answer to explain: its `name`, and `choose`, which returns its value [batch] from the model's
    outputs. `fields` are the request's fields of the encoding's first and second text."""

    name: str
    encoding: Encoding
    fields: Sequence[str]
    choose: Callable[[Any], torch.Tensor]


def check(runtime: Any) -> None:
    """Raises Problem if this archive, or this server, cannot explain."""
    if runtime.unexplained:
        raise Problem(runtime.unexplained, status=501)
    if importlib.util.find_spec("captum") is None:
        raise Problem("explanations need captum on the server: pip install captum", status=501)


def explain(
    runtime: Any, tokenizer: Any, target: Target, texts: dict[str, Any], steps: int, pace: Pace, clock: Clock
) -> dict[str, Any]:
    """The explanation of a target, for a runtime that passed `check`. Raises Late if there is not enough time,
    NotFinite if the model's outputs are not numbers."""
    from captum.attr import LayerIntegratedGradients

    model = runtime.model
    runtime.fresh()
    batch = tokenizer.batch([target.encoding])
    inputs = [batch[name].to(runtime.device) for name in runtime.inputs]

    def forward(*tensors: torch.Tensor) -> torch.Tensor:
        if not clock.begins(EXPLAINED * pace.token * tensors[0].numel()):
            raise Late
        # The class's own forward: a compiled one would be recompiled for the gradient hooks.
        out = type(model).forward(model, **dict(zip(runtime.inputs, tensors)), return_dict=True)
        return target.choose(out).float()

    special = torch.tensor([target.encoding.special_tokens_mask], dtype=torch.bool, device=inputs[0].device)
    empty = torch.where(special, inputs[0], torch.full_like(inputs[0], tokenizer.pad))
    gradients = LayerIntegratedGradients(forward, model.get_input_embeddings())
    with torch.inference_mode(False), torch.enable_grad():
        attributions = gradients.attribute(
            inputs[0],
            baselines=empty,
            additional_forward_args=tuple(inputs[1:]),
            n_steps=steps,
            internal_batch_size=max(1, int(min(AT_ONCE, steps, pace.run / EXPLAINED / inputs[0].numel()))),
        )
    importances = attributions.detach().float().sum(-1)[0].tolist()
    with torch.inference_mode():
        value, baseline = float(forward(*inputs)), _without(model, forward, inputs, empty)
    delta = sum(importances) - (value - baseline)
    if not math.isfinite(delta):  # as it is whenever one of its parts is not
        raise NotFinite
    return {
        "target": target.name,
        "value": value,
        "baseline": baseline,
        "delta": delta,
        "tokens": _tokens(target, importances),
        "words": _words(target, importances, texts),
    }


def _without(
    model: Any, forward: Callable[..., torch.Tensor], inputs: list[torch.Tensor], empty: torch.Tensor
) -> float:
    """The target's value with the embeddings of `empty`. The input ids stay: some models compute positions from them,
    which are not explained."""
    table = model.get_input_embeddings()
    instead = table(empty)
    hook = table.register_forward_hook(lambda *_: instead)
    try:
        return float(forward(*inputs))
    finally:
        hook.remove()


def _place(target: Target, index: int) -> tuple[str, int, int] | None:
    """The field of a token and its character offsets; None for a special token."""
    sequence = target.encoding.sequence_ids[index]
    if sequence is None or target.encoding.special_tokens_mask[index]:
        return None
    return (target.fields[sequence], *target.encoding.offsets[index])


def _tokens(target: Target, importances: list[float]) -> list[dict[str, Any]]:
    tokens = []
    for index, importance in enumerate(importances):
        place = _place(target, index)
        where = {"field": place[0], "start": place[1], "end": place[2]} if place else {}
        tokens.append({"token": target.encoding.tokens[index], **where, "importance": importance})
    return tokens


def _words(target: Target, importances: list[float], texts: dict[str, Any]) -> list[dict[str, Any]]:
    """The importances of words, which are the sums over their tokens, with the tokenizer's word boundaries."""
    words: list[dict[str, Any]] = []
    last: Any = None
    for index, importance in enumerate(importances):
        place = _place(target, index)
        if place is None:
            continue
        field, start, end = place
        word = (field, target.encoding.word_ids[index])
        if word == last and word[1] is not None:
            words[-1]["end"] = max(words[-1]["end"], end)
            words[-1]["importance"] += importance
        else:
            words.append({"field": field, "start": start, "end": end, "importance": importance})
        last = word
    return [{"text": texts[word["field"]][word["start"] : word["end"]], **word} for word in words]
