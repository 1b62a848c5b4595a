"""Finds out how an encoder's last layer computes keys and values, so that it can run for one token of each text.

A classifier's head reads one token. For the other tokens the last layer needs to compute keys and values only, which
saves about five sixths of its work.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


class LastLayer:
    """The last layer of an encoder. `known` is set if the layer attends once, and its keys and values each come from a
    linear layer (`key`, `value`) whose input is the layer's own input. In a layer that normalizes first it is not."""

    def __init__(self, layer: nn.Module) -> None:
        self.layer, self.forward = layer, layer.forward
        self.known = False
        self._input: torch.Tensor | None = None
        self._producers: dict[int, nn.Module] | None = None
        """The linear layer that computed a tensor, by the tensor's address."""
        self._pairs: list[tuple[nn.Module | None, nn.Module | None]] = []
        """The producers of the keys and the values of each attention."""

    @classmethod
    def of(cls, encoder: nn.Module) -> LastLayer | None:
        """The last layer of an encoder; None unless the encoder has exactly one list of layers, of two or more."""
        lists = [child for child in encoder.children() if isinstance(child, nn.ModuleList)]
        return cls(lists[0][-1]) if len(lists) == 1 and len(lists[0]) > 1 else None

    @contextmanager
    def learning(self) -> Iterator[None]:
        """Within the context, record which modules compute the layer's keys and values."""
        linear = [module for module in self.layer.modules() if isinstance(module, nn.Linear)]
        self._producers = {}
        hooks = [module.register_forward_hook(self._note) for module in linear]
        hooks.append(self.layer.register_forward_pre_hook(self._enter))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
            self._input = self._producers = None
        known = [pair for pair in self._pairs if pair != (None, None)]
        if len(known) == 1:
            key, value = known[0]
            if key and value:
                self.key, self.value, self.known = key, value, True

    def _enter(self, _: nn.Module, inputs: Any) -> None:
        self._input = inputs[0] if inputs else None

    def _note(self, module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        if self._producers is not None and inputs[0] is self._input:
            self._producers[output.data_ptr()] = module

    def learn(self, key: torch.Tensor, value: torch.Tensor) -> None:
        """Record which modules computed an attention's keys and values, which are views of the modules' outputs."""
        if self._producers is not None:
            self._pairs.append((self._producers.get(key.data_ptr()), self._producers.get(value.data_ptr())))
            self._producers.clear()  # a freed tensor's address is used again
