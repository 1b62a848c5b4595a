"""Models whose answers depend on other texts: the neighbours in a batch, or what was asked before.

Such a model runs each text alone, from the state that it had when it was loaded. Examples are convolutions that see
padding, masks that are ignored, rotary embeddings that are scaled by the longest text, and attention that is chosen
by the length of the text before.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, List

import torch

from ..inference.generation import Parameters

MARK = -1
"""An id of padding that no text contains."""

TOLERANCE = {torch.float32: 1e-4}
"""The largest difference between the outputs alone and in a batch, relative to the largest output. Reordered sums
differ by a tenth of it."""
_SIXTEEN_BITS = 5e-2

_LENGTHS = (4, 18, 33)
"""Tokens of the texts of a trial, if the model takes as many."""

_SCALED = ("dynamic", "longrope", "su")
"""Kinds of rotary embeddings whose frequencies depend on the longest text that the model reads, or has read."""


_KEPT = {"_parameters", "forward"}
"""Attributes of a module that are no state: weights, and a compiled form."""


class State:
    """The state of a model: the attributes, buffers and submodules of its modules, without weights."""

    def __init__(self, model: Any) -> None:
        self._modules = [(module, _attributes(module), _values(module)) for module in model.modules()]

    def restore(self) -> None:
        """Put the modules back into this state."""
        for module, attributes, values in self._modules:
            own = vars(module)
            for name in own.keys() - attributes.keys() - _KEPT:
                del own[name]
            for name, value in attributes.items():
                own[name] = _copied(value)
            for name, (buffer, value) in values.items():
                if not torch.equal(buffer, value):
                    buffer.copy_(value)
                module._buffers[name] = buffer


def _attributes(module: Any) -> dict[str, Any]:
    return {name: _copied(value) for name, value in vars(module).items() if name not in _KEPT}


def _copied(value: Any) -> Any:
    """A copy of a container, which the model may change; anything else as it is."""
    return value.copy() if isinstance(value, (dict, list, set)) else value


def _values(module: Any) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """The buffers, and copies of them."""
    return {name: (each, each.clone()) for name, each in module._buffers.items() if each is not None}


def switches(config: Any, max_length: int) -> bool:
    """Whether a model's config says that it computes long texts in another way than short ones, below `max_length`."""
    config = config.get_text_config() if hasattr(config, "get_text_config") else config
    if getattr(config, "attention_type", None) == "block_sparse":
        return True
    # transformers 5 renamed rope_scaling. Its values may be settings by layer type.
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    parts = [rope, *(part for part in rope.values() if isinstance(part, dict))]
    for part in parts:
        if (part.get("rope_type") or part.get("type")) in _SCALED:
            limit = part.get("original_max_position_embeddings") or config.max_position_embeddings
            limit = getattr(config, "original_max_position_embeddings", None) or limit
            if max_length > limit:
                return True
    return False


Outputs = List[List[torch.Tensor]]
"""The outputs for each text of a batch."""


def depends(model: Any, ask: Callable[[list[list[int]]], Outputs], pad: int, max_length: int) -> bool:
    """Whether the outputs for a text depend on its neighbours in a batch, or on what was asked before. `ask` returns
    the model's outputs for a batch of texts (token ids). A model that fails on a batch alone depends on it too."""
    size = vocabulary(model)
    if not size:
        return False
    lengths = [min(length, max(1, max_length - STEPS)) for length in _LENGTHS]
    texts = [[(31 * row + 7 * place + 5) % size for place in range(length)] for row, length in enumerate(lengths)]
    texts = [[(pad + 1) % size if token == pad else token for token in text] for text in texts]
    try:
        alone = [ask([text])[0] for text in texts[:-1]]
    except Exception:  # a model may raise anything; requests will tell why
        return False
    try:
        # Alone once more, after the batch.
        others = [*ask(texts)[:-1], *ask(texts[:1])]
    except Exception:
        return True
    return any(_differ(one, other, model.dtype) for one, other in zip([*alone, alone[0]], others))


def _differ(ones: Sequence[torch.Tensor], others: Sequence[torch.Tensor], dtype: torch.dtype) -> bool:
    """Whether outputs differ. Those that are not finite tell nothing."""
    limit = TOLERANCE.get(dtype, _SIXTEEN_BITS)
    return any(float((a - b).abs().max()) > limit * max(1.0, float(a.abs().max())) for a, b in zip(ones, others))


def accepts(model: Any, name: str, *, named: bool = False) -> bool:
    """Whether the model's forward takes an argument of that name; with `named`, not merely among arbitrary ones."""
    parameters = inspect.signature(type(model).forward).parameters
    return name in parameters or (not named and any(each.kind is each.VAR_KEYWORD for each in parameters.values()))


def vocabulary(model: Any) -> int | None:
    """The number of the model's input embeddings; None if it is unknown, as it may be for a model's own code."""
    try:
        return int(model.get_input_embeddings().weight.shape[0])
    except (NotImplementedError, AttributeError):
        return None


def marks_padding(model: Any) -> bool:
    """Whether padding has to be MARK: the model reads the last token that is not padding, and has no padding token, so
    every token may be a text's last one. Its embedding then reads MARK as token 0."""
    config = model.config.get_text_config() if hasattr(model.config, "get_text_config") else model.config
    own, size = getattr(config, "pad_token_id", None), vocabulary(model)
    if not size or (own is not None and 0 <= own < size):
        return False
    config.pad_token_id = MARK
    model.get_input_embeddings().register_forward_pre_hook(lambda _, inputs: (inputs[0].clamp(min=0), *inputs[1:]))
    return True


def padded(texts: list[list[int]], pad: int, *, left: bool) -> dict[str, torch.Tensor]:
    """The batch of some texts, as `Tokenizer.batch` returns it."""
    longest = max(map(len, texts))
    rows = [([pad] * (longest - len(text)), text) for text in texts]
    ids = torch.tensor([fill + text if left else text + fill for fill, text in rows])
    mask = [([0] * len(fill), [1] * len(text)) for fill, text in rows]
    masks = torch.tensor([fill + text if left else text + fill for fill, text in mask])
    return {"input_ids": ids, "attention_mask": masks, "token_type_ids": torch.zeros_like(ids)}


STEPS = 2
"""Tokens that a trial generates."""


class Trial:
    """A row of a generation that records the logits of its steps, and writes token 0."""

    def __init__(self) -> None:
        self.parameters = Parameters(max_new_tokens=STEPS)
        self.finish: str | None = None
        self.logits: list[torch.Tensor] = []

    def choose(self, logits: torch.Tensor) -> int:
        self.logits.append(logits.float().cpu())
        return 0

    def accept(self, _token: int) -> None:
        self.finish = "length" if len(self.logits) == STEPS else None
