"""Encoder layers over nested tensors: what BetterTransformer did, so that padding costs nothing.

A padded batch [batch, length, hidden] goes through the encoder as the values of a nested tensor, [1, tokens, hidden]:
every token once and none of padding. All that an encoder's layers do, they do to each token by itself, but for
attention, which is done here text by text. So no family has code of its own: a model has this form if its encoder takes
hidden states and a mask, and attends by torch's scaled_dot_product_attention without any further bias. Whether that
gives the model's own answers is tried once, at loading.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from itertools import accumulate
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from handlers.runtimes.last_layer import LastLayer

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 5e-2, torch.float16: 1e-2}
"""Between the answers of both forms, relative to the largest of them; what reordered sums make of them is a tenth."""

_attention = F.scaled_dot_product_attention


class NoForm(ValueError):
    """Why a model has no nested form."""


class Nested:
    """A model's encoder, taught to leave padding out. Raises NoForm."""

    def __init__(self, model: Any, inputs: list[str]) -> None:
        self.encoder = _encoder(model)
        self.forward = self.encoder.forward
        self.last = LastLayer.of(self.encoder)
        self.spans: list[slice] = []
        self.tokens = torch.empty(0)
        self.attended = 0
        probe = _Probe(model, inputs)
        with self.last.learning() if self.last else nullcontext():
            self._hold(probe)
        if self.last and self.last.known:
            self._try_last(probe)

    @contextmanager
    def without_padding(self, mask: torch.Tensor) -> Iterator[None]:
        """While it lasts, the model takes batches with this mask, [batch, length]."""
        if bool(mask.all()):
            yield
            return
        ends = list(accumulate(mask.sum(1).tolist()))
        self.spans = [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]
        self.tokens = mask.flatten().nonzero().squeeze(1)
        self.encoder.forward = self._encode
        F.scaled_dot_product_attention = self._attend  # type: ignore[assignment]
        try:
            yield
        finally:
            self.encoder.forward, F.scaled_dot_product_attention = self.forward, _attention

    def _encode(self, *args: Any, **words: Any) -> Any:
        """The encoder's forward: padded hidden states in and out, the values of nested ones in between."""
        name = next((name for name in ("hidden_states", "x") if name in words), None)
        padded = words.pop(name) if name else args[0]
        flat, tokens = padded.flatten(0, 1), self.tokens.to(padded.device)
        words = {key: value for key, value in words.items() if key not in ("attention_mask", "attn_mask")}
        if self.last and self.last.known:
            firsts = [span.start for span in self.spans]
            with self.last.only(firsts):
                out = self.forward(flat[tokens][None], None, **words)
            tokens = tokens[firsts]
        else:
            out = self.forward(flat[tokens][None], None, **words)
        values = out[0][0]
        back = values.new_zeros(flat.shape[0], values.shape[-1])
        back[tokens] = values
        back = back.unflatten(0, padded.shape[:2])
        if isinstance(out, tuple):
            return (back, *out[1:])
        out.last_hidden_state = back
        return out

    def _attend(
        self,
        query: Any,
        key: Any,
        value: Any,
        attn_mask: Any = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        **words: Any,
    ) -> Any:
        """Attention of each text to itself: [1, heads, tokens, size], as scaled_dot_product_attention has it."""
        del dropout_p  # there is none at serving
        if attn_mask is not None or is_causal:
            raise NoForm("its attention is biased or masked in a way of its own")
        self.attended += 1
        asking = self.spans
        if self.last:
            self.last.learn(key, value)
            if self.last.pending:
                key, value = self.last.take(query)
                asking = [slice(number, number + 1) for number in range(len(self.spans))]
        if query.shape[2] != asking[-1].stop or key.shape[2] != len(self.tokens):
            raise NoForm("it attends to something else than its tokens")
        out = torch.empty_like(query.transpose(1, 2)).transpose(1, 2)
        for some, text in zip(asking, self.spans, strict=True):
            out[:, :, some] = _attention(query[:, :, some], key[:, :, text], value[:, :, text], **words)
        return out

    def _hold(self, probe: _Probe) -> None:
        """Hold the form against the model's own."""
        try:
            with self.without_padding(probe.mask):
                worst = probe.worst()
        except NoForm:
            raise
        except Exception as error:
            raise NoForm(f"its encoder cannot be called so ({type(error).__name__})") from None
        if not self.attended:
            raise NoForm("it does not attend by scaled_dot_product_attention")
        if not worst <= probe.tolerance:
            raise NoForm(f"its answers would differ by {worst:.1g}")

    def _try_last(self, probe: _Probe) -> None:
        """Forget the last layer's short way if the model answers otherwise by it, as its head reads more tokens."""
        try:
            self._hold(probe)
        except NoForm:
            self.last = None


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
        return [one[keep] if one.shape[:2] == keep.shape else one for one in found]

    def worst(self) -> float:
        """How far the model's answers are from those that it gave at first."""
        return max(float((one - other).abs().max()) for one, other in zip(self._ask(), self.wanted, strict=True))


def _encoder(model: Any) -> nn.Module:
    """The stack of layers between a model's embeddings and its head."""
    for name in ("encoder", "transformer"):
        found = getattr(model.base_model, name, None)
        if isinstance(found, nn.Module):
            return found
    raise NoForm("it has no encoder between its embeddings and its head")
