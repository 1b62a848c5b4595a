"""Code that comes with a model (`auto_map` in its configs): which files of it run."""

from __future__ import annotations

import re
import sys
from collections.abc import Collection
from dataclasses import replace

from ..errors import InputError
from ..tasks import TASKS
from .checkpoint import CONFIG
from .selection import Selection, Text, read_object, refuse_outside
from .settings_files import keys_of

_RELATIVE_IMPORT = re.compile(r"^\s*from\s+\.(\w+)\s+import\b", re.MULTILINE)
"""As transformers looks for them (`dynamic_module_utils`)."""

_TAKEN = {"handlers", *TASKS, *sys.stdlib_module_names} | {
    "torch", "transformers", "tokenizers", "safetensors", "numpy", "yaml", "ts",
}  # fmt: skip
"""Modules that a server imports with an archive's folder first on its path."""


def with_code(model: Selection, present: Collection[str], where: str, text: Text) -> Selection:
    """A selection with the files of code that its config.json and its tokenizer's config name, and what these import
    beside them. Raises InputError for code that is not there, or that an archive cannot hold."""
    if CONFIG not in model.files:
        return model
    home = model.files[CONFIG].removesuffix(CONFIG)
    found: dict[str, str] = {}
    queue = _named(model, where, text)
    while queue:
        name = queue.pop()
        if name in found:
            continue
        refuse_outside(name, where)
        if home + name not in present:
            raise InputError(
                f"{where} lacks {name}, code of the model's own that it needs.",
                fix="Copy it from the model's source, or save the model again.",
            )
        if name.partition("/")[0].removesuffix(".py") in _TAKEN:
            raise InputError(
                f"{where} has code of its own in {name}, a name that the archive or its server has for other code.",
                fix="Rename it in a copy of the model, where it is imported and in auto_map too.",
            )
        found[name] = home + name
        beside = name.rpartition("/")[0] + "/" if "/" in name else ""
        queue += [f"{beside}{module}.py" for module in _RELATIVE_IMPORT.findall(text(home + name))]
    return replace(model, files={**model.files, **found})


def _named(model: Selection, where: str, text: Text) -> list[str]:
    """The files that `auto_map` names ("modeling_own.OwnModel"; of a tokenizer, one for each of its kinds)."""
    files: list[str] = []
    for config in (CONFIG, "tokenizer_config.json"):
        if config not in model.files:
            continue
        told = read_object(text(model.files[config]), model.files[config], where)
        maps = [value for _, key, value in keys_of(told, "") if key == "auto_map"]
        places = [place for each in maps for place in (each.values() if isinstance(each, dict) else [each])]
        for place in [one for item in places for one in (item if isinstance(item, list) else [item]) if one]:
            if "--" in str(place):
                raise InputError(
                    f"{where} runs code out of another repository ({place}), which no commit of this one pins.",
                    fix="Copy it into a folder with the model, name it there in auto_map, and build that.",
                )
            files.append(str(place).rpartition(".")[0] + ".py")
    return files
