"""Worker side: whether transformers has a class for a checkpoint, told by names alone."""

from __future__ import annotations

from pathlib import Path

from ..errors import InputError
from ..model.checkpoint import CONFIG, read_json
from ..tasks import TASKS
from ..text import printable


def refuse_unknown(folder: Path) -> None:
    """Raises InputError for a checkpoint whose `model_type` none of the four tasks' Auto classes knows.

    transformers makes the config of whatever type is named, and those of some types load other models, or run their
    code, while they are made; where none is named, it takes one that the folder's name has in it. Code of the model's
    own, which its `auto_map` names for a type that transformers does not have, is left to transformers' own question.
    """
    if not (folder / CONFIG).exists():
        return
    import transformers
    from transformers.models.auto import modeling_auto
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    told = read_json(folder / CONFIG)
    named, own = told.get("model_type"), told.get("auto_map")
    if isinstance(own, dict) and "AutoConfig" in own and (named is None or str(named) not in CONFIG_MAPPING_NAMES):
        return
    known = {name for task in TASKS.values() for name in getattr(modeling_auto, _NAMES[task.auto_class])}
    if not isinstance(named, str):
        raise InputError(
            "The checkpoint's config.json names no model_type, so nothing tells its architecture.",
            "It was not written by save_pretrained(), or is of another library's.",
            'Add it ("model_type": "bert"), or save the model again with save_pretrained().',
        )
    if named not in known:
        raise InputError(
            f"transformers {transformers.__version__} has no model for text of the type {printable(named)!r}, "
            "which config.json names.",
            f"None of {', '.join(task.auto_class for task in TASKS.values())} knows it; it may be newer than the "
            "installed transformers.",
            "Upgrade transformers, or name a model for one of the four tasks.",
        )


_NAMES = {
    "AutoModelForSequenceClassification": "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES",
    "AutoModelForTokenClassification": "MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES",
    "AutoModelForQuestionAnswering": "MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES",
    "AutoModelForCausalLM": "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",
}
