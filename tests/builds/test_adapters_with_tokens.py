"""Adapters that were trained with tokens added: the base model is resized as the trainer did it, and then merged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mar_pipeline.errors import InputError
from mar_pipeline.workers import loading
from tests.builds.test_adapters import train
from tests.support import tiny
from tests.support.mar import Mar

pytestmark = pytest.mark.slow

ALL = ["embed_tokens", "lm_head"]
WAYS: dict[str, dict[str, Any]] = {
    "embeddings saved as modules": {"modules_to_save": ALL},
    "input embeddings alone": {"modules_to_save": ["embed_tokens"]},
    "embeddings saved beside": {"save": True},
    "LoRA on the embeddings": {"layers": ["q_proj", *ALL]},
    "single tokens": {"trainable_token_indices": {"embed_tokens": [400, 401]}},
    "padded": {"modules_to_save": ALL, "size": 448},
    "fewer": {"modules_to_save": ALL, "size": 394},
    "none added": {"modules_to_save": ALL, "size": 400},
}


def trained(base: Path, folder: Path, way: dict[str, Any]) -> tuple[Path, Any]:
    """An adapter over the base, with its tokenizer, and peft's model before it was saved."""
    import peft
    from transformers import AutoModelForCausalLM, AutoTokenizer

    way = dict(way)
    size, layers, saved = way.pop("size", 402), way.pop("layers", ["q_proj", "v_proj"]), way.pop("save", "auto")
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_tokens(["<tool>", "</tool>"], special_tokens=True)
    model = AutoModelForCausalLM.from_pretrained(base)
    model.resize_token_embeddings(size)
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=layers, **way)
    wrapped = train(peft.get_peft_model(model, config)).eval()
    wrapped.peft_config["default"].base_model_name_or_path = str(base)
    wrapped.save_pretrained(folder, save_embedding_layers=saved)
    tokenizer.save_pretrained(folder)
    return folder, wrapped


def laid(base: Path, adapter: Path, folder: Path) -> Path:
    """A checkpoint as the download stage lays it out: the base, and the adapter in a folder of it."""
    import shutil

    shutil.copytree(base, folder)
    shutil.copytree(adapter, folder / "adapter")
    return folder


@pytest.fixture(scope="module", params=[False, True], ids=["", "tied"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base") / "llama"
    return tiny.save(folder, "llama", "text_generation", tie_word_embeddings=request.param)


def job(folder: Path, **more: Any) -> dict[str, Any]:
    plain = {"allow_untrained_head": False, "num_labels": None, "labels": None, "auto_class": "AutoModelForCausalLM"}
    return {"checkpoint": str(folder), **plain, **more}


@pytest.mark.parametrize("way", WAYS)
def test_the_merged_and_saved_model_answers_as_the_trained_one(base: Path, way: str, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    adapter, wrapped = trained(base, tmp_path / "trained", WAYS[way])
    folder = laid(base, adapter, tmp_path / "checkpoint")
    out = tmp_path / "out"
    out.mkdir()
    loading.save(job(folder, out=str(out)), lambda *_: None)
    ids = torch.arange(380, wrapped.get_input_embeddings().weight.shape[0]).view(1, -1)
    with torch.inference_mode():
        wanted = wrapped(input_ids=ids).logits
        for model in (loading.model(job(folder)), AutoModelForCausalLM.from_pretrained(out)):
            assert torch.allclose(model(input_ids=ids).logits, wanted, atol=1e-4)


def test_an_adapter_without_the_embeddings_of_its_tokens_is_refused(base: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    adapter, _ = trained(base, tmp_path / "trained", WAYS["LoRA on the embeddings"])
    file = adapter / "adapter_model.safetensors"
    kept = {name: weight for name, weight in load_file(file).items() if "base_layer" not in name}
    save_file(kept, file, metadata={"format": "pt"})
    with pytest.raises(InputError, match="402 tokens, which is 2 more than its base model has, and lacks embeddings"):
        loading.model(job(laid(base, adapter, tmp_path / "checkpoint")))


def test_an_archive_writes_what_the_trained_model_writes(base: Path, tmp_path: Path) -> None:
    import json

    import torch
    from transformers import AutoTokenizer

    adapter, wrapped = trained(base, tmp_path / "trained", WAYS["embeddings saved as modules"])
    mar = Mar(tmp_path)
    (archive,) = mar.build("--model", adapter)
    asked = {"prompt": "the room <tool>", "parameters": {"max_new_tokens": 12}}
    done = mar("run", archive["path"], "--input", json.dumps(asked), "--json")
    assert done.returncode == 0, done.stderr
    tokenizer = AutoTokenizer.from_pretrained(adapter)
    ids = tokenizer(asked["prompt"], return_tensors="pt")["input_ids"]
    out = wrapped.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False)
    text = tokenizer.decode(out[0], skip_special_tokens=True)[len(tokenizer.decode(ids[0], skip_special_tokens=True)) :]
    assert json.loads(done.stdout)["generated_text"] == text
