"""Runs encoder layers over nested tensors, as BetterTransformer did, so that they compute nothing for padding.

The encoder gets a padded batch [batch, length, hidden] as the values of a nested tensor, [1, tokens, hidden]: each
token once, without the padding, which is only embedded. An encoder's layers treat each token separately, except for
attention, which this module computes text by text. So no model family needs code of its own. A model has this nested
form if its encoder takes hidden states and a mask, and attends by torch's scaled_dot_product_attention without another
bias. When the model is loaded, the answers of both forms are compared once.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from itertools import accumulate
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from .last_layer import LastLayer
from .linear import rounded

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 5e-2, torch.float16: 1e-2}
"""The largest difference between the answers of both forms, relative to the largest answer. Reordered sums differ by a
tenth of it."""

_attention: Any = getattr(F, "scaled_dot_product_attention", None)  # torch 2 has it
_thread = threading.local()
"""`batch`: the _Batch that this thread is running through the layers, if any."""


class NoForm(ValueError):
    """A model has no nested form; the message says why."""


class Nested:
    """A model whose encoder skips padding. Raises NoForm if the model has no nested form, and leaves it unchanged.

    Several threads may run it at once: each thread has its own batch.
    """

    def __init__(self, model: Any, inputs: list[str]) -> None:
        if _attention is None:
            raise NoForm("this torch has no scaled_dot_product_attention")
        self.encoder = _encoder(model)
        self.forward = self.encoder.forward
        self.last = LastLayer.of(self.encoder)
        self.rounds = False
        """Whether to round the number of tokens up (`linear.rounded`) before the layers, instead of in each product."""
        try:
            probe = _Probe(model, inputs)
        except Exception as error:
            raise NoForm(f"it fails on a trial batch ({type(error).__name__})") from None
        F.scaled_dot_product_attention = _attend  # type: ignore[assignment]
        self.encoder.forward = self._encode
        try:
            with self.last.learning() if self.last else nullcontext():
                self._check(probe)
        except NoForm:
            self.encoder.forward = self.forward
            raise
        if self.last:
            self._try_last(probe)

    @contextmanager
    def without_padding(self, mask: torch.Tensor) -> Iterator[_Batch | None]:
        """Within the context, the model runs batches with this mask, [batch, length], in this thread."""
        if bool(mask.all()) and not self.last:
            yield None  # there is no padding to skip
            return
        _thread.batch = batch = _Batch(mask, self.last)
        try:
            yield batch
        finally:
            _thread.batch = None

    def _encode(self, *args: Any, **words: Any) -> Any:
        """The encoder's forward: takes and returns padded hidden states [batch, length, hidden]; its layers get nested
        values."""
        batch = _running()
        if batch is None:
            return self.forward(*args, **words)
        name = next((name for name in ("hidden_states", "x") if name in words), None)
        padded = words.pop(name) if name else args[0]
        words = {key: value for key, value in words.items() if key not in ("attention_mask", "attn_mask")}
        flat = padded.flatten(0, 1)
        values = flat[batch.tokens]
        if self.rounds:
            values = F.pad(values, (0, 0, 0, rounded(len(values)) - len(values)))
        out = self.forward(values[None], None, **words)
        values = out[0][0][: len(batch.firsts) if batch.shortened else len(batch.tokens)]
        back = values.new_zeros(flat.shape[0], values.shape[-1])
        back[batch.tokens[batch.firsts] if batch.shortened else batch.tokens] = values
        back = back.unflatten(0, padded.shape[:2])
        if isinstance(out, tuple):
            return (back, *out[1:])
        out.last_hidden_state = back
        return out

    def _last(self, hidden: torch.Tensor, *args: Any, **words: Any) -> Any:
        """The last layer's forward, [1, tokens, hidden] -> [1, texts, hidden]: in a nested batch, each text's first
        token."""
        batch, last = _running(), self.last
        assert last is not None
        if batch is None:
            return last.forward(hidden, *args, **words)
        batch.pending = last.key(hidden), last.value(hidden)
        batch.shortened = True
        return last.forward(hidden[:, batch.firsts], *args, **words)

    def _check(self, probe: _Probe) -> None:
        """Compare the nested form's answers with the model's own. Raises NoForm if they differ."""
        try:
            with self.without_padding(probe.mask) as batch:
                worst = probe.worst()
        except NoForm:
            raise
        except Exception as error:
            raise NoForm(f"its encoder fails on nested tensors ({type(error).__name__})") from None
        if not batch or not batch.attended:
            raise NoForm("it does not attend by scaled_dot_product_attention")
        if not worst <= probe.tolerance:
            raise NoForm(f"its answers would differ by {worst:.1g}")

    def _try_last(self, probe: _Probe) -> None:
        """Run the last layer for the first tokens alone, unless its keys and values are unknown or the answers differ
        then: a head may read more tokens."""
        last = self.last
        assert last is not None
        if last.known:
            last.layer.forward = self._last
            try:
                return self._check(probe)
            except NoForm:
                last.layer.forward = last.forward
        self.last = None


class _Batch:
    """The state of a batch on its way through the layers; `mask` is [batch, length]."""

    def __init__(self, mask: torch.Tensor, last: LastLayer | None) -> None:
        ends = list(accumulate(mask.sum(1).tolist()))
        self.spans = [slice(start, end) for start, end in zip([0, *ends], ends)]
        self.firsts = [span.start for span in self.spans]
        self.tokens = mask.flatten().nonzero().squeeze(1)
        self.last = last
        self.attended = 0
        self.shortened = False
        """Whether the last layer has run for the first tokens alone."""
        self.pending: tuple[torch.Tensor, torch.Tensor] | None = None
        """The last layer's keys and values of all tokens, [1, tokens, hidden], until its attention uses them."""

    def attend(self, query: Any, key: Any, value: Any, **words: Any) -> Any:
        """The attention of each text to itself, [1, heads, tokens, size]; the arguments are
        scaled_dot_product_attention's."""
        self.attended += 1
        queries = self.spans
        if self.last:
            self.last.learn(key, value)
        if self.pending:
            key, value = (_heads(each, query) for each in self.pending)
            self.pending = None
            queries = [slice(number, number + 1) for number in range(len(self.spans))]
        if not (_as_many(query, queries[-1].stop) and _as_many(key, len(self.tokens))):
            raise NoForm("its attention has another number of tokens than its input")
        # Rows that the rounding added attend to nothing; their output is zero.
        out = torch.zeros_like(query.transpose(1, 2)).transpose(1, 2)
        for some, text in zip(queries, self.spans):
            out[:, :, some] = _attention(query[:, :, some], key[:, :, text], value[:, :, text], **words)
        return out


def _as_many(each: torch.Tensor, tokens: int) -> bool:
    """Whether queries or keys [1, heads, tokens, size] have this number of tokens, plain or rounded."""
    return each.shape[2] in (tokens, rounded(tokens))


def _heads(projected: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
    """Keys or values [1, tokens, hidden] split into the query's heads, [1, heads, tokens, size]."""
    return projected.view(1, -1, query.shape[1], query.shape[3]).transpose(1, 2)


def _running() -> _Batch | None:
    return getattr(_thread, "batch", None)


def _attend(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    **words: Any,
) -> Any:
    """scaled_dot_product_attention; a nested batch attends by `_Batch.attend`."""
    batch = _running()
    if batch is None:
        return _attention(query, key, value, attn_mask, dropout_p, is_causal, **words)
    if attn_mask is not None or is_causal:
        raise NoForm("its attention is biased or masked in a way of its own")
    return batch.attend(query, key, value, **words)  # there is no dropout at serving


class _Probe:
    """A padded batch of three lengths, and the model's own answers to it."""

    def __init__(self, model: Any, inputs: list[str]) -> None:
        ids = torch.arange(3 * 9).view(3, 9) % model.get_input_embeddings().num_embeddings
        mask = torch.tensor([[1] * length + [0] * (9 - length) for length in (4, 9, 1)])
        batch = {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}
        self.model, self.batch = model, {name: batch[name].to(model.device) for name in inputs}
        self.mask = self.batch["attention_mask"]
        self.wanted = self._ask()
        largest = max(float(one.abs().max()) for one in self.wanted)
        self.tolerance = TOLERANCE.get(model.dtype, 1e-5) * max(1.0, largest)

    @torch.inference_mode()
    def _ask(self) -> list[torch.Tensor]:
        out = self.model(**self.batch, return_dict=True)
        outputs = [out[name].float().cpu() for name in ("logits", "start_logits", "end_logits") if name in out]
        # Outputs at padded places mean nothing.
        keep = self.mask.bool().cpu()
        each = out.logits.dim() == 3 if "logits" in out else True
        return [one[keep] if each else one for one in outputs]

    def worst(self) -> float:
        """The largest difference between the model's answers now and its own answers."""
        return max(float((one - other).abs().max()) for one, other in zip(self._ask(), self.wanted))


def _encoder(model: Any) -> nn.Module:
    """The layers between a model's embeddings and its head. Raises NoForm if there is no such module."""
    names = ("encoder", "transformer")
    children = (getattr(model.base_model, name, None) for name in names)
    encoder = next((child for child in children if isinstance(child, nn.Module)), None)
    if encoder is None:
        raise NoForm("it has no encoder between its embeddings and its head")
    # Rotary embeddings would count positions through all texts of the batch.
    if any("rotary" in type(module).__name__.lower() for module in encoder.modules()):
        raise NoForm("its attention computes positions itself (rotary embeddings)")
    return encoder
