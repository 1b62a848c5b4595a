"""Encoder layers over nested tensors: what BetterTransformer did, so that padding costs nothing.

A padded batch [batch, length, hidden] goes through the encoder as the values of a nested tensor, [1, tokens, hidden]:
every token once and none of padding. All that an encoder's layers do, they do to each token by itself, but for
attention, which is done here text by text. So no family has code of its own: a model has this form if its encoder takes
hidden states and a mask, and attends by torch's scaled_dot_product_attention without any further bias. Whether that
gives the model's own answers is tried once, at loading.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 5e-2, torch.float16: 1e-2}
"""Between the answers of both forms, relative to the largest of them; what reordered sums make of them is a tenth."""

_attention = F.scaled_dot_product_attention


class NoForm(ValueError):
    """Why a model has no nested form."""


class Nested:
    """A model's encoder, taught to leave padding out; `model` is changed. Raises NoForm, and then it is not."""

    def __init__(self, model: Any, inputs: list[str]) -> None:
        self.encoder = _encoder(model)
        self.forward = self.encoder.forward
        self.lengths: list[int] = []
        self.tokens = torch.empty(0)
        self.attended = 0
        self._hold(model, inputs)

    @contextmanager
    def without_padding(self, mask: torch.Tensor) -> Iterator[None]:
        """While it lasts, the model takes batches with this mask, [batch, length]."""
        if bool(mask.all()):
            yield
            return
        self.lengths = mask.sum(1).tolist()
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
        if attn_mask is not None or is_causal or query.shape[2] != len(self.tokens):
            raise NoForm("its attention is biased or masked in a way of its own")
        self.attended += 1
        del dropout_p  # there is none at serving
        out = torch.empty_like(query.transpose(1, 2)).transpose(1, 2)
        start = 0
        for length in self.lengths:
            text = slice(start, start + length)
            out[:, :, text] = _attention(query[:, :, text], key[:, :, text], value[:, :, text], **words)
            start += length
        return out

    @torch.inference_mode()
    def _hold(self, model: Any, inputs: list[str]) -> None:
        """Hold the form against the model's own, on a batch of three lengths."""
        ids = torch.arange(3 * 9).view(3, 9) % model.get_input_embeddings().num_embeddings
        mask = torch.tensor([[1] * length + [0] * (9 - length) for length in (4, 9, 1)])
        batch = {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}
        batch = {name: batch[name].to(model.device) for name in inputs}
        wanted = model(**batch, return_dict=True)
        try:
            with self.without_padding(batch["attention_mask"]):
                got = model(**batch, return_dict=True)
        except NoForm:
            raise
        except Exception as error:
            raise NoForm(f"its encoder cannot be called so ({type(error).__name__})") from None
        if not self.attended:
            raise NoForm("it does not attend by scaled_dot_product_attention")
        for name in (name for name in ("logits", "start_logits", "end_logits") if name in wanted):
            one, other = got[name].float(), wanted[name].float()
            if one.shape[:2] == mask.shape:  # an answer for each token: what stands at padding is nobody's
                one, other = one[mask.bool().to(one.device)], other[mask.bool().to(one.device)]
            worst = float((one - other).abs().max())
            if not worst <= TOLERANCE.get(model.dtype, 1e-5) * max(1.0, float(other.abs().max())):
                raise NoForm(f"its answers would differ by {worst:.1g}")


def _encoder(model: Any) -> nn.Module:
    """The stack of layers between a model's embeddings and its head."""
    for name in ("encoder", "transformer"):
        found = getattr(model.base_model, name, None)
        if isinstance(found, nn.Module):
            return found
    raise NoForm("it has no encoder between its embeddings and its head")
