"""Which tokens an answer comes from: integrated gradients over a model's input embeddings, by captum.

The importances of a text add up to the difference between what the model makes of it (`value`) and of the same text
with every ordinary token padded out (`baseline`), but for `delta`, which the approximation leaves
(https://arxiv.org/abs/1703.01365).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import Encoding

from ..protocol.problem import Problem
from .pace import Clock, Late, Pace

STEPS = 50
"""Points on the way from the baseline to the text where a request does not say."""

AT_ONCE = 16
"""Of them, run as one batch, or fewer where a run would take too long."""

WORK = 65_536
"""Tokens times steps of one request at most, on the fastest machine: 50 steps of 1,300 tokens."""

EXPLAINED = 3
"""How many times as long as a token of an answer one of a step takes, which goes through the model forward and back,
without what makes answers fast."""


@dataclass(frozen=True)
class Target:
    """What of a model's answer is explained: its `name`, and `choose`, which takes it out of the model's outputs as
    [batch]. `fields` are the request's fields that the encoding's first and second text are."""

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
    """The explanation of a target, by a runtime that `check` lets through. Raises Late if the time does not last."""
    from captum.attr import LayerIntegratedGradients

    model = runtime.model
    batch = tokenizer.batch([target.encoding])
    inputs = [batch[name].to(runtime.device) for name in runtime.inputs]

    def forward(*tensors: torch.Tensor) -> torch.Tensor:
        if not clock.begins(EXPLAINED * pace.token * tensors[0].numel()):
            raise Late
        # The class's own forward: a compiled one would be compiled again, with the hooks that read the gradients.
        out = type(model).forward(model, **dict(zip(runtime.inputs, tensors)), return_dict=True)
        return target.choose(out).float()

    special = torch.tensor([target.encoding.special_tokens_mask], dtype=torch.bool, device=inputs[0].device)
    empty = torch.where(special, inputs[0], torch.full_like(inputs[0], tokenizer.pad))
    gradients = LayerIntegratedGradients(forward, model.get_input_embeddings())
    with torch.inference_mode(False), torch.enable_grad():
        found = gradients.attribute(
            inputs[0],
            baselines=empty,
            additional_forward_args=tuple(inputs[1:]),
            n_steps=steps,
            internal_batch_size=max(1, int(min(AT_ONCE, steps, pace.run / EXPLAINED / inputs[0].numel()))),
        )
    importances = found.detach().float().sum(-1)[0].tolist()
    with torch.inference_mode():
        value, baseline = float(forward(*inputs)), _without(model, forward, inputs, empty)
    return {
        "target": target.name,
        "value": value,
        "baseline": baseline,
        "delta": sum(importances) - (value - baseline),
        "tokens": _tokens(target, importances),
        "words": _words(target, importances, texts),
    }


def _without(
    model: Any, forward: Callable[..., torch.Tensor], inputs: list[torch.Tensor], empty: torch.Tensor
) -> float:
    """What the model makes of the text with the embeddings of `empty`. Its ids stay: some models count their positions
    by them, which are no part of what is explained."""
    table = model.get_input_embeddings()
    instead = table(empty)
    hook = table.register_forward_hook(lambda *_: instead)
    try:
        return float(forward(*inputs))
    finally:
        hook.remove()


def _place(target: Target, index: int) -> tuple[str, int, int] | None:
    """The field of a token and its characters there; None for a special token."""
    sequence = target.encoding.sequence_ids[index]
    if sequence is None or target.encoding.special_tokens_mask[index]:
        return None
    return (target.fields[sequence], *target.encoding.offsets[index])


def _tokens(target: Target, importances: list[float]) -> list[dict[str, Any]]:
    found = []
    for index, importance in enumerate(importances):
        place = _place(target, index)
        where = {"field": place[0], "start": place[1], "end": place[2]} if place else {}
        found.append({"token": target.encoding.tokens[index], **where, "importance": importance})
    return found


def _words(target: Target, importances: list[float], texts: dict[str, Any]) -> list[dict[str, Any]]:
    """Tokens of one word together, as the tokenizer splits words."""
    found: list[dict[str, Any]] = []
    last: Any = None
    for index, importance in enumerate(importances):
        place = _place(target, index)
        if place is None:
            continue
        field, start, end = place
        word = (field, target.encoding.word_ids[index])
        if word == last and word[1] is not None:
            found[-1]["end"] = max(found[-1]["end"], end)
            found[-1]["importance"] += importance
        else:
            found.append({"field": field, "start": start, "end": end, "importance": importance})
        last = word
    return [{"text": texts[word["field"]][word["start"] : word["end"]], **word} for word in found]
