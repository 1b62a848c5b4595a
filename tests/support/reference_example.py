"""The configurations in the README of pytorch/serve's examples/Huggingface_Transformers, and tiny models for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from tests.support import tiny

# What the example's model-config.yaml has outside of `handler:`.
TOP = {"minWorkers": 1, "maxWorkers": 1}
COMPILED = {"pt2": {"compile": {"enable": True, "backend": "inductor", "mode": "reduce-overhead"}}}
# What its four `handler:` sections share.
SHARED = {
    "do_lower_case": True,
    "save_mode": "pretrained",
    "max_length": 150,
    "captum_explanation": True,
    "BetterTransformer": False,
    "model_parallel": False,
}
# Model, labels and embeddings of each section, by its mode.
SECTIONS: dict[str, tuple[str, int, str]] = {
    "sequence_classification": ("bert-base-uncased", 2, "bert"),
    "token_classification": ("bert-base-uncased", 9, "bert"),
    "question_answering": ("distilbert-base-cased-distilled-squad", 0, "distilbert"),
    "text_generation": ("gpt2", 0, "gpt2"),
}
# The README's two kinds of archive, of which the first is compiled unless the section for that is taken out; and
# torchscript.md's save_mode, for which it has explanations off.
FORMS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "torch.compile": (COMPILED, {}),
    "eager": ({}, {}),
    "torchscript": ({}, {"save_mode": "torchscript", "captum_explanation": False}),
}
FAMILIES = {"bert-base-uncased": "bert", "distilbert-base-cased-distilled-squad": "distilbert", "gpt2": "gpt2"}
TASKS = {
    "sequence_classification": "seq_classification",
    "token_classification": "token_classification",
    "question_answering": "question_answering",
    "text_generation": "text_generation",
}


def config(mode: str, top: dict[str, Any], changes: dict[str, Any]) -> str:
    model, labels, embeddings = SECTIONS[mode]
    handler = {"model_name": model, "mode": mode, "num_labels": labels, "embedding_name": embeddings}
    return yaml.safe_dump({**TOP, "handler": {**handler, **SHARED, **changes}, **top})


def model(folder: Path, mode: str) -> Path:
    """A tiny model of the family that a section names, with room for the section's max_length."""
    name, labels, _ = SECTIONS[mode]
    places = {"n_positions": 160} if name == "gpt2" else {"max_position_embeddings": 160}
    tiny.save(folder, FAMILIES[name], TASKS[mode], **places, **({"num_labels": labels} if labels else {}))
    settings = folder / "tokenizer_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "model_max_length": 160}))
    return folder
