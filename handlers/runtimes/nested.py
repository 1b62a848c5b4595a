"""Encoder layers over nested tensors: what BetterTransformer did, so that padding costs the layers nothing.

A padded batch [batch, length, hidden] goes through the encoder as the values of a nested tensor, [1, tokens, hidden]:
every token once and none of padding, which is embedded and no more. All that an encoder's layers do, they do to each
token by itself, but for attention, which is done here text by text. So no family has code of its own: a model has this
form if its encoder takes hidden states and a mask, and attends by torch's scaled_dot_product_attention without any
further bias. Whether that gives the model's own answers is tried once, at loading.
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
"""Between the answers of both forms, relative to the largest of them; what reordered sums make of them is a tenth."""

_attention: Any = getattr(F, "scaled_dot_product_attention", None)  # torch 2 has it
_thread = threading.local()
"""`batch`: the _Batch that is on its way through the layers in this thread, if one is."""


class NoForm(ValueError):
    """Why a model has no nested form."""


class Nested:
    """A model's encoder, taught to leave padding out. Raises NoForm, and leaves the model as it was then.

    Several threads may run it at once: what belongs to a batch is kept by its thread.
    """

    def __init__(self, model: Any, inputs: list[str]) -> None:
        if _attention is None:
            raise NoForm("this torch has no scaled_dot_product_attention")
        self.encoder = _encoder(model)
        self.forward = self.encoder.forward
        self.last = LastLayer.of(self.encoder)
        self.rounds = False
        """Whether the layers get their tokens `linear.rounded`: once, rather than in each product."""
        try:
            probe = _Probe(model, inputs)
        except Exception as error:
            raise NoForm(f"it does not take a batch to try it with ({type(error).__name__})") from None
        F.scaled_dot_product_attention = _attend  # type: ignore[assignment]
        self.encoder.forward = self._encode
        try:
            with self.last.learning() if self.last else nullcontext():
                self._hold(probe)
        except NoForm:
            self.encoder.forward = self.forward
            raise
        if self.last:
            self._try_last(probe)

    @contextmanager
    def without_padding(self, mask: torch.Tensor) -> Iterator[_Batch | None]:
        """While it lasts, the model takes batches with this mask, [batch, length], in this thread."""
        if bool(mask.all()) and not self.last:
            yield None  # nothing would be left out
            return
        _thread.batch = batch = _Batch(mask, self.last)
        try:
            yield batch
        finally:
            _thread.batch = None

    def _encode(self, *args: Any, **words: Any) -> Any:
        """The encoder's forward: padded hidden states in and out, the values of nested ones in between."""
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
        """The last layer's forward, [1, tokens, hidden]: of a batch without padding, each text's first token alone."""
        batch, last = _running(), self.last
        assert last is not None
        if batch is None:
            return last.forward(hidden, *args, **words)
        batch.pending = last.key(hidden), last.value(hidden)
        batch.shortened = True
        return last.forward(hidden[:, batch.firsts], *args, **words)

    def _hold(self, probe: _Probe) -> None:
        """Hold the form against the model's own."""
        try:
            with self.without_padding(probe.mask) as batch:
                worst = probe.worst()
        except NoForm:
            raise
        except Exception as error:
            raise NoForm(f"its encoder cannot be called so ({type(error).__name__})") from None
        if not batch or not batch.attended:
            raise NoForm("it does not attend by scaled_dot_product_attention")
        if not worst <= probe.tolerance:
            raise NoForm(f"its answers would differ by {worst:.1g}")

    def _try_last(self, probe: _Probe) -> None:
        """Forget the last layer's short way if it is not known, or if the model answers otherwise by it, as its head
        reads more tokens."""
        last = self.last
        assert last is not None
        if last.known:
            last.layer.forward = self._last
            try:
                return self._hold(probe)
            except NoForm:
                last.layer.forward = last.forward
        self.last = None


class _Batch:
    """A padded batch on its way through the layers, by its mask [batch, length]."""

    def __init__(self, mask: torch.Tensor, last: LastLayer | None) -> None:
        ends = list(accumulate(mask.sum(1).tolist()))
        self.spans = [slice(start, end) for start, end in zip([0, *ends], ends)]
        self.firsts = [span.start for span in self.spans]
        self.tokens = mask.flatten().nonzero().squeeze(1)
        self.last = last
        self.attended = 0
        self.shortened = False
        """Whether the last layer has gone the short way."""
        self.pending: tuple[torch.Tensor, torch.Tensor] | None = None
        """Its keys and values of all tokens, [1, tokens, hidden], until the attention of the chosen ones takes them."""

    def attend(self, query: Any, key: Any, value: Any, **words: Any) -> Any:
        """Attention of each text to itself: [1, heads, tokens, size], as scaled_dot_product_attention has it."""
        self.attended += 1
        asking = self.spans
        if self.last:
            self.last.learn(key, value)
        if self.pending:
            key, value = (_heads(each, query) for each in self.pending)
            self.pending = None
            asking = [slice(number, number + 1) for number in range(len(self.spans))]
        if not (_as_many(query, asking[-1].stop) and _as_many(key, len(self.tokens))):
            raise NoForm("it attends to something else than its tokens")
        # What the rounding adds asks nothing, but goes through the layers behind.
        out = torch.zeros_like(query.transpose(1, 2)).transpose(1, 2)
        for some, text in zip(asking, self.spans):
            out[:, :, some] = _attention(query[:, :, some], key[:, :, text], value[:, :, text], **words)
        return out


def _as_many(each: torch.Tensor, tokens: int) -> bool:
    """Whether queries or keys [1, heads, tokens, size] are those of so many tokens."""
    return each.shape[2] in (tokens, rounded(tokens))


def _heads(made: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
    """Keys or values [1, tokens, hidden] in heads like the query's, [1, heads, tokens, size]."""
    return made.view(1, -1, query.shape[1], query.shape[3]).transpose(1, 2)


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
    """scaled_dot_product_attention, but for a batch without padding: see _Batch.attend."""
    batch = _running()
    if batch is None:
        return _attention(query, key, value, attn_mask, dropout_p, is_causal, **words)
    if attn_mask is not None or is_causal:
        raise NoForm("its attention is biased or masked in a way of its own")
    return batch.attend(query, key, value, **words)  # there is no dropout at serving


class _Probe:
    """A padded batch of three lengths, and what the model makes of it by itself."""

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
        found = [out[name].float().cpu() for name in ("logits", "start_logits", "end_logits") if name in out]
        # Of an answer for each token, what stands at padding is nobody's.
        keep = self.mask.bool().cpu()
        each = out.logits.dim() == 3 if "logits" in out else True
        return [one[keep] if each else one for one in found]

    def worst(self) -> float:
        """How far the model's answers are from those that it gave at first."""
        return max(float((one - other).abs().max()) for one, other in zip(self._ask(), self.wanted))


def _encoder(model: Any) -> nn.Module:
    """The stack of layers between a model's embeddings and its head."""
    names = ("encoder", "transformer")
    found = next((each for name in names if isinstance(each := getattr(model.base_model, name, None), nn.Module)), None)
    if found is None:
        raise NoForm("it has no encoder between its embeddings and its head")
    # In a row of texts one behind the other, a token would be turned by its place in the row.
    if any("rotary" in type(module).__name__.lower() for module in found.modules()):
        raise NoForm("its attention counts places by itself")
    return found
