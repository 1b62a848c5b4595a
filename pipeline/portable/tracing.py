"""What torch.jit.trace needs: a module with positional tensors, example inputs, and masks that can be traced."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .protocol import Job


def encoder(model: Any, inputs: list[str], outputs: list[str]) -> Any:
    """A module that takes `inputs` as positional tensors and returns the tuple of `outputs`, as a graph has to."""
    import torch

    class Encoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *tensors: Any) -> Any:
            out = self.model(**dict(zip(inputs, tensors)), return_dict=True)
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
