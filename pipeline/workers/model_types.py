"""Worker side: whether transformers has a class for a checkpoint, by names alone."""

from __future__ import annotations

import re
from pathlib import Path

from ..errors import InputError
from ..model.checkpoint import CONFIG, read_json
from ..tasks import TASKS
from ..text import printable


def refuse_unknown(folder: Path) -> None:
    """Raises InputError for a checkpoint whose `model_type` none of the tasks' Auto classes supports.

    transformers instantiates the config of any type, and those of some types load other models or run their code;
    without a type, it guesses one from the folder's name. If `auto_map` names the model's own code for a type that
    transformers does not have, transformers asks itself (trust_remote_code).
    """
    if not (folder / CONFIG).exists():
        return
    import transformers
    from transformers.models.auto import modeling_auto
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    config = read_json(folder / CONFIG)
    named, own = config.get("model_type"), config.get("auto_map")
    if isinstance(own, dict) and "AutoConfig" in own and (named is None or str(named) not in CONFIG_MAPPING_NAMES):
        return
    supported = {name for task in TASKS.values() for name in getattr(modeling_auto, _table(task.auto_class))}
    if not isinstance(named, str):
        raise InputError(
            "The checkpoint's config.json has no model_type, so its architecture is unknown.",
            "It was not written by save_pretrained(), or is from another library.",
            'Add it ("model_type": "bert"), or save the model again with save_pretrained().',
        )
    if named not in supported:
        raise InputError(
            f"transformers {transformers.__version__} has no text model of the type {printable(named)!r}, which "
            "config.json names.",
            f"None of {', '.join(task.auto_class for task in TASKS.values())} supports it; it may be newer than the "
            "installed transformers.",
            f"Upgrade transformers, or use a model for one of the tasks: {', '.join(TASKS)}.",
        )


def _table(auto_class: str) -> str:
    """transformers' table of an Auto class's models: for AutoModelForCausalLM, MODEL_FOR_CAUSAL_LM_MAPPING_NAMES."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", auto_class.removeprefix("Auto"))
    return f"{words.upper()}_MAPPING_NAMES"
