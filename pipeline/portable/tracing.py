"""What torch.jit.trace needs: a module with positional tensors, example inputs, and masks that can be traced."""

from __future__ import annotations

import inspect
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .protocol import Job


MARK = -1
"""The id of padding for a model without a padding token."""


def own_padding(model: Any) -> int | None:
    """The id of the model's padding token; None if it has none, or one that its embeddings do not have."""
    config = model.config.get_text_config() if hasattr(model.config, "get_text_config") else model.config
    own = getattr(config, "pad_token_id", None)
    return own if own is not None and 0 <= own < model.get_input_embeddings().weight.shape[0] else None


def encoder(model: Any, inputs: list[str], outputs: list[str]) -> Any:
    """A module that takes `inputs` as positional tensors and returns the tuple of `outputs`, as a graph has to.

    A classifier that reads the last token that is not padding, and has no padding token, gets MARK as padding: every
    token may be a text's last one. Its embedding reads MARK as token 0.
    """
    import torch

    marks = type(model).__name__.endswith("ForSequenceClassification") and own_padding(model) is None
    if marks:
        config = model.config.get_text_config() if hasattr(model.config, "get_text_config") else model.config
        config.pad_token_id = MARK
        model.get_input_embeddings().register_forward_pre_hook(lambda _, given: (given[0].clamp(min=0), *given[1:]))

    accepted = inspect.signature(type(model).forward).parameters
    # transformers 4.57's FNet.
    maskless = "attention_mask" not in accepted and not any(one.kind is one.VAR_KEYWORD for one in accepted.values())

    class Encoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *tensors: Any) -> Any:
            given = dict(zip(inputs, tensors))
            if maskless:
                del given["attention_mask"]
            if marks:
                given["input_ids"] = given["input_ids"].masked_fill(given["attention_mask"] == 0, MARK)
            out = self.model(**given, return_dict=True)
            return tuple(out[name] for name in outputs)

    return Encoder()


def example(job: Job, length: int, model: Any) -> tuple[Any, ...]:
    """A full batch of example inputs, int64 [batch, length] each. Row i is padded on the right by i eighths of its
    length (i modulo 8), and keeps at least one token."""
    import torch

    batch = job["batch"]
    generator = torch.Generator().manual_seed(length)
    ids = torch.randint(0, model.get_input_embeddings().num_embeddings, (batch, length), generator=generator)
    mask = torch.ones(batch, length, dtype=torch.long)
    for row in range(batch):
        kept = max(1, length - row % 8 * max(1, length // 8))
        mask[row, kept:] = 0
        ids[row, :kept][ids[row, :kept] == job["pad"]] = (job["pad"] + 1) % 2
        ids[row, kept:] = job["pad"]
    types = (torch.arange(length) >= length // 2).long()[None] * mask
    given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
    return tuple(given[name] for name in job["inputs"])


@contextmanager
def traceable_masks() -> Iterator[None]:
    """Within the context, transformers builds attention masks from index tensors that broadcast, as version 5 does.
    Some earlier versions use torch.vmap, which torch.jit.trace cannot trace; the oldest do not have the module.
    """
    try:
        from transformers import masking_utils as masks
    except ImportError:
        yield
        return

    def over_indices(function: Any, bh_indices: bool = True) -> Any:
        def mask(batch: Any, head: Any, query: Any, key: Any) -> Any:
            if not bh_indices:
                return function(batch, head, query[:, None], key).expand(query.shape[0], key.shape[0])
            places = batch[:, None, None, None], head[:, None, None], query[:, None], key
            return function(*places).expand(batch.shape[0], head.shape[0], query.shape[0], key.shape[0])

        return mask

    changed: dict[str, Any] = {"_vmap_for_bhqkv": over_indices, "TransformGetItemToIndex": nullcontext}
    known = {name: value for name, value in changed.items() if hasattr(masks, name)}
    with patch.multiple(masks, **known) if "_vmap_for_bhqkv" in known else nullcontext():
        yield
