"""Backends: how a checkpoint is serialized. A new target is a module with these functions, and a line here:

TOOLS                     distributions whose version decides what comes out
params(build) -> dict     the settings that the result depends on
serialize(job) -> entries fill job.folder with weights or graph; return the checkpoint's entries kept as they are
"""

from __future__ import annotations

from types import ModuleType

from . import pretrained, torchscript

BACKENDS: dict[str, ModuleType] = {"pretrained": pretrained, "torchscript": torchscript}
