"""Writes a recipe's checkpoint."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from tests.support import tiny

from .recipes import Recipe


def make(recipe: Recipe, folder: Path) -> Path:
    """Write it to `folder`, and return the folder that holds it. Raises whatever transformers raises."""
    import torch
    import transformers as t
    from tokenizers import AddedToken

    place = folder / "run" / "checkpoint-12" if recipe.layout == "trainer" else folder / "model"
    tiny.save(place, recipe.family, recipe.task, tokenizer_of=recipe.tokenizer, **recipe.shape)
    model = getattr(t, tiny.AUTO[recipe.task]).from_pretrained(place)
    if recipe.tokens:
        tokenizer = t.AutoTokenizer.from_pretrained(place)
        special = [AddedToken(**one) for one in recipe.tokens]
        tokenizer.add_tokens(special)
        tokenizer.save_pretrained(place)
        if len(tokenizer) > model.get_input_embeddings().num_embeddings:
            torch.manual_seed(2)
            model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    model = model.to(getattr(torch, recipe.dtype))
    (place / "model.safetensors").unlink()
    _save(model, place, recipe.layout)
    for name, changes in (
        ("config.json", recipe.config),
        ("tokenizer_config.json", recipe.tokenizer_config),
        ("generation_config.json", recipe.generation_config),
    ):
        if changes:
            _merge(place / name, changes)
    return place


def _save(model: Any, place: Path, layout: str) -> None:
    """The weights, in the recipe's form; a stale file beside them has other numbers."""
    import torch
    from safetensors.torch import load_file, save_file

    if layout == "shards":
        model.save_pretrained(place, max_shard_size="40KB")
        return
    model.save_pretrained(place)
    if layout == "bin":
        torch.save(model.state_dict(), place / "pytorch_model.bin")
        (place / "model.safetensors").unlink()
    elif layout == "trainer":
        for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin"):
            torch.save({"step": 12}, place / name)
        (place / "trainer_state.json").write_text('{"global_step": 12}', encoding="utf-8")
    elif layout == "stale bin":
        torch.save({name: value + 1 for name, value in model.state_dict().items()}, place / "pytorch_model.bin")
    elif layout == "stale index":
        beside = place.parent / "stale"
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(1)
        model.save_pretrained(beside, max_shard_size="40KB")
        for file in beside.glob("model*"):
            if file.name != "model.safetensors":
                shutil.move(file, place / file.name)
        shutil.rmtree(beside)
    elif layout == "metadata":
        # As tools write it that are not transformers: without {"format": "pt"}.
        save_file(load_file(place / "model.safetensors"), place / "model.safetensors")


def _merge(file: Path, changes: dict[str, Any]) -> None:
    settings = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    file.write_text(json.dumps({**settings, **changes}, indent=2), encoding="utf-8")
