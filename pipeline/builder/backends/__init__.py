"""Backends: how a checkpoint is serialized. A new target is a module that is a `Backend`, and a line here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Protocol

from ...host.chips import CHIPS
from . import neuron, pretrained, torchscript

if TYPE_CHECKING:
    from ...config.settings import HandlerSettings
    from ...files.tree import Entry
    from ..build import Inputs, Job


class Backend(Protocol):
    """What a backend's module has."""

    @property
    def TOOLS(self) -> tuple[str, ...]:
        """The distributions whose versions decide what comes out."""

    def params(self, inputs: Inputs) -> dict[str, Any]:
        """The settings that the result depends on. Raises InputError where they cannot be met."""

    def serialize(self, job: Job) -> Iterable[Entry]:
        """Fill the job's folder with weights or a graph; the checkpoint's entries that are kept as they are."""


BACKENDS: dict[str, Backend] = {
    "pretrained": pretrained,
    "torchscript": torchscript,
    **dict.fromkeys(CHIPS, neuron),
}


def name(handler: HandlerSettings) -> str:
    """The backend that settings ask for: a chip's own, or that of the form in which weights are kept."""
    return handler.hardware if handler.hardware in BACKENDS else handler.save_mode


def of(handler: HandlerSettings) -> Backend:
    """That backend's module."""
    return BACKENDS[name(handler)]
