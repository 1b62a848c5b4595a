"""Worker side: the original model and its tokenizer, for the answers that an archive is compared with.

Nothing here is shared with what builds or runs an archive: transformers decides by its own code which inputs a model
gets, with which padding and token types.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import InputError, MarError

_OUTPUTS = ("logits", "start_logits", "end_logits")


def inputs(model: Any, encoded: Any) -> dict[str, Any]:
    """What the tokenizer returned, as far as the model's forward has arguments for it, and that outputs have names."""
    accepted = inspect.signature(model.forward).parameters
    names = ("input_ids", "attention_mask", "token_type_ids")
    return {name: encoded[name] for name in names if name in encoded and name in accepted} | {"return_dict": True}


class Original:
    """The original model. `load` loads it; it is loaded again if a request changed its state, so that no answer depends
    on an earlier request."""

    def __init__(self, load: Callable[[], Any]) -> None:
        self._load = load
        self.model = load()
        self._state = _state(self.model)

    @contextmanager
    def asked(self, number: int) -> Iterator[Any]:
        """The model for sample `number`. Raises InputError if the model fails on it, or if its scores are not
        numbers."""
        import torch

        if not _same(self._state, _state(self.model)):
            self.model = self._load()
            self._state = _state(self.model)
        broken: list[str] = []

        def look(_module: Any, _inputs: Any, out: Any) -> None:
            for name in _OUTPUTS:
                scores = out.get(name) if isinstance(out, dict) else None
                # Minus infinity excludes a token.
                if isinstance(scores, torch.Tensor) and not bool((scores < torch.inf).all()):
                    broken.append(name)

        hook = self.model.register_forward_hook(look)
        try:
            yield self.model
        except MarError:
            raise
        except Exception as error:  # a model may raise anything
            if not broken:
                raise _failed(number, error) from error
        finally:
            hook.remove()
        if broken:
            raise InputError(
                f"The original model's {broken[0]} for sample {number} are NaN or infinite.",
                "Its training diverged, its weights are damaged, or its values overflow the type that they have.",
                "Use an earlier checkpoint, or a handler.dtype of more range: float32, or bfloat16 instead of float16.",
            )


def _failed(number: int, error: Exception) -> InputError:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return InputError(
        f"The original model cannot answer sample {number}: {type(error).__name__}: {lines[0] if lines else ''}",
        "transformers itself raises this, so an archive of this model could not answer either.",
        "Correct the model's config.json, or handler.max_length if only long texts fail. If the sample is one of your "
        "verify.samples, correct the sample.",
    )


def _state(model: Any) -> dict[str, Any]:
    """What a request could change in a model, but for weights: classes of modules, plain attributes and buffers."""
    import torch

    state: dict[str, Any] = {}
    for name, module in model.named_modules():
        state[name] = type(module)
        for key, value in vars(module).items():
            if isinstance(value, (bool, int, float, str)):
                state[f"{name}.{key}"] = value
            elif isinstance(value, torch.Tensor) and value.dim() == 0:
                state[f"{name}.{key}"] = float(value)
        for key, buffer in module.named_buffers(recurse=False):
            state[f"{name}.{key}"] = buffer.clone()
    return state


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    import torch

    def equal(a: Any, b: Any) -> bool:
        if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
            return torch.equal(a, b)
        # A tensor may take the place of a number, which is a change.
        return type(a) is type(b) and bool(a == b)

    return one.keys() == other.keys() and all(equal(value, other[name]) for name, value in one.items())
