"""Loads the handler of an unpacked archive, as TorchServe's worker finds it (ts/model_loader.py)."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .context import LocalContext
from .protocol import Refused, message_of

if TYPE_CHECKING:
    from types import ModuleType

# fmt: off
BUILT_IN = (
    "base_handler", "image_classifier", "image_segmenter", "object_detector", "text_classifier", "text_handler",
    "vision_handler", "dali_image_classifier", "dali_handler", "densenet_handler", "vllm_handler", "trt_llm_handler",
)
# fmt: on
"""TorchServe's built-in handlers (ts/torch_handler), which a manifest names without a file."""


class Unusable(Refused):
    """An archive that cannot be used as given."""

    code = 2


class NotOneClass(ValueError):
    """A handler's file defines no class, or several. (Not a MarError: this module also runs where mar_pipeline is not
    installed.)"""


def _module_and_function(handler: str) -> tuple[str, str]:
    """The module and the function that a manifest's `handler` names, as ts/model_loader.py reads it."""
    module, _, function = handler.partition(":")
    module = module[: -len(".py")] if module.endswith(".py") else module
    return module.split("/")[-1], function or "handle"


def load(model_dir: Path, *, hurried: bool = True) -> tuple[Any, Any, LocalContext]:
    """Load the handler of an unpacked archive, and initialize it. Returns the handler's object (None for a function),
    what answers a batch, and the context. Raises NotOneClass, Unusable, or what the handler raises."""
    os.chdir(model_dir)
    sys.path.insert(0, str(model_dir))
    context = LocalContext(model_dir, hurried=hurried)
    handler, handle, initialize = _entry_point(context)
    initialize(context)
    return handler, handle, context


def _entry_point(context: LocalContext) -> tuple[Any, Any, Any]:
    name, function = _module_and_function(str(context.manifest["model"].get("handler") or ""))
    module = _module(name, context)
    if hasattr(module, function):
        entry = getattr(module, function)
        return None, entry, lambda context: entry(None, context)
    classes = [kind for _, kind in inspect.getmembers(module, inspect.isclass) if kind.__module__ == module.__name__]
    if len(classes) != 1:
        raise NotOneClass(f"The handler {name}.py defines {len(classes)} classes, and TorchServe wants one.")
    handler: Any = classes[0]()
    return handler, handler.handle, handler.initialize


def _module(name: str, context: LocalContext) -> ModuleType:
    folder = Path(context.system_properties["model_dir"])
    own = any((folder / f"{name}{suffix}").exists() for suffix in ("", ".py", ".pyc"))
    if own or name not in BUILT_IN:
        try:
            return importlib.import_module(name or "?")
        except ModuleNotFoundError as error:
            if own or error.name != name:
                raise
            raise Unusable(
                f"The archive's handler is {name}, which is neither a module in it nor one of TorchServe's own.",
                "The manifest names it, and torch-model-archiver packs a handler's file only if its path is given.",
                "Make the archive again, with PATH/TO/FILE.py as the --handler of torch-model-archiver.",
            ) from None
    try:
        return importlib.import_module(f"ts.torch_handler.{name}")
    except ImportError as error:
        lacking = (getattr(error, "name", None) or "").partition(".")[0] or "another package"
        needed = "torchserve" if lacking == "ts" else lacking
        raise Unusable(
            f"The archive's handler is TorchServe's own {name}, which cannot be imported here: {message_of(error)}.",
            f"It is not a part of the archive, and needs {needed} in this environment.",
            f"Install {needed} into {sys.executable}.",
        ) from None
