"""Backends: how a checkpoint is serialized. A new target is a module with these functions, and a line here:

TOOLS                     our distributions whose version decides what comes out
params(build) -> dict     the settings that the result depends on
serialize(job) -> entries fill job.folder with weights or graph; return the checkpoint's entries kept as they are
"""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING

from . import neuron, pretrained, torchscript

if TYPE_CHECKING:
    from ...config.settings import HandlerSettings

BACKENDS: dict[str, ModuleType] = {
    "pretrained": pretrained,
    "torchscript": torchscript,
    "neuron": neuron,
    "neuronx": neuron,
}


def name(handler: HandlerSettings) -> str:
    """The backend that settings ask for: a chip's own, or that of the form in which weights are kept."""
    return handler.hardware if handler.hardware in BACKENDS else handler.save_mode


def of(handler: HandlerSettings) -> ModuleType:
    """That backend's module."""
    return BACKENDS[name(handler)]
