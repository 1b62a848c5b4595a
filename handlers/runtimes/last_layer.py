"""An encoder's last layer, for the one token of each text that a classifier's head reads.

The others' keys and values are needed, and nothing else that the layer makes of them: so five sixths of its work go.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


class LastLayer:
    """The last layer of an encoder. `known` once it has been seen at work and has turned out to be of the usual kind:
    called once, with its keys and values each out of a linear layer of its own that takes what the layer takes (one
    that norms first does not)."""

    def __init__(self, layer: nn.Module) -> None:
        self.layer, self.forward = layer, layer.forward
        self.known = False
        self._given: torch.Tensor | None = None
        self._made: dict[int, nn.Module] | None = None
        self._found: list[tuple[nn.Module | None, nn.Module | None]] = []

    @classmethod
    def of(cls, encoder: nn.Module) -> LastLayer | None:
        """The last one of an encoder's only list of layers; None if it has no such list."""
        lists = [child for child in encoder.children() if isinstance(child, nn.ModuleList)]
        return cls(lists[0][-1]) if len(lists) == 1 and len(lists[0]) > 1 else None

    @contextmanager
    def learning(self) -> Iterator[None]:
        """While it lasts, watch where the layer's keys and values come from."""
        linear = [module for module in self.layer.modules() if isinstance(module, nn.Linear)]
        self._made = {}
        hooks = [module.register_forward_hook(self._note) for module in linear]
        hooks.append(self.layer.register_forward_pre_hook(self._enter))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
            self._given = self._made = None
        seen = [pair for pair in self._found if pair != (None, None)]
        if len(seen) == 1:
            key, value = seen[0]
            if key and value:
                self.key, self.value, self.known = key, value, True

    def _enter(self, _: nn.Module, given: Any) -> None:
        self._given = given[0] if given else None

    def _note(self, module: nn.Module, given: Any, made: torch.Tensor) -> None:
        if self._made is not None and given[0] is self._given:
            self._made[made.data_ptr()] = module

    def learn(self, key: torch.Tensor, value: torch.Tensor) -> None:
        """Look for the makers of an attention's keys and values, which are views of what those made."""
        if self._made is not None:
            self._found.append((self._made.get(key.data_ptr()), self._made.get(value.data_ptr())))
            self._made.clear()  # the memory of what is gone is used again
