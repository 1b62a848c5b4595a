"""Remote code: the Python files that come with a model and run with it (`auto_map` in its configs)."""

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
"""transformers' own pattern (`dynamic_module_utils`)."""

_TAKEN = {"handlers", *TASKS, *sys.stdlib_module_names} | {
    "torch", "transformers", "tokenizers", "safetensors", "numpy", "yaml", "ts",
}  # fmt: skip
"""Modules that a server imports while an archive's folder comes first on its path."""


def with_code(model: Selection, present: Collection[str], where: str, text: Text) -> Selection:
    """The selection with the Python files that its config.json and its tokenizer's config name, and the files that
    these import from their own folder. `present` are the source's paths. Raises InputError for a missing file, and for
    one whose name is taken in an archive."""
    if CONFIG not in model.files:
        return model
    home = model.files[CONFIG].removesuffix(CONFIG)
    code: dict[str, str] = {}
    queue = _named(model, where, text)
    while queue:
        name = queue.pop()
        if name in code:
            continue
        refuse_outside(name, where)
        if home + name not in present:
            raise InputError(
                f"{where} lacks {name}, which is part of the model's own code.",
                fix="Copy it from the model's source, or save the model again.",
            )
        if name.partition("/")[0].removesuffix(".py") in _TAKEN:
            raise InputError(
                f"{where} has code in {name}, which is the name of other code in the archive or its server.",
                fix="Rename it in a copy of the model, also where it is imported and in auto_map.",
            )
        code[name] = home + name
        beside = name.rpartition("/")[0] + "/" if "/" in name else ""
        queue += [f"{beside}{module}.py" for module in _RELATIVE_IMPORT.findall(text(home + name))]
    return replace(model, files={**model.files, **code})


def _named(model: Selection, where: str, text: Text) -> list[str]:
    """The files that `auto_map` names ("modeling_own.OwnModel"; for a tokenizer a slow and a fast one)."""
    files: list[str] = []
    for config in (CONFIG, "tokenizer_config.json"):
        if config not in model.files:
            continue
        data = read_object(text(model.files[config]), model.files[config], where)
        maps = [value for _, key, value in keys_of(data, "") if key == "auto_map"]
        places = [place for each in maps for place in (each.values() if isinstance(each, dict) else [each])]
        for place in [one for item in places for one in (item if isinstance(item, list) else [item]) if one]:
            if "--" in str(place):
                raise InputError(
                    f"{where} runs code from another repository ({place}), which is not pinned by its own commit.",
                    fix="Copy that code into a folder with the model, name it in auto_map, and build the folder.",
                )
            files.append(str(place).rpartition(".")[0] + ".py")
    return files
