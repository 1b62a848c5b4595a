"""Models whose answers depend on other texts, on the length of a text or on their padding answer as transformers does
for each text alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mar_pipeline.answers.compare import differences
from mar_pipeline.errors import StageError
from tests.support import tiny
from tests.support.unpacked import Served, lay_out

pytestmark = pytest.mark.slow

WRITES, CLASSIFIES, TAGS = "text_generation", "seq_classification", "token_classification"
MODES = ("pretrained", "torchscript")
TEXTS = [
    "the room was good and the staff kind",
    "awful",
    "once upon a time an old man looked at the sky and opened the door near the factory in March",
    " ".join(tiny.WORDS[:30]),
    " ".join(tiny.WORDS[20:75]),
]
PROMPTS = [
    "the",
    "once upon a time an old man",
    "the room was good and bad and kind",
    "looked at the sky in the morning",
]
LONGROPE = {
    "rope_type": "longrope",
    "short_factor": [1.0, 1.25, 1.5, 1.75],
    "long_factor": [3.0, 4.0, 5.0, 6.0],
    "original_max_position_embeddings": 24,
    "factor": 64 / 24,
    "rope_theta": 10000.0,
}
DYNAMIC = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0}


def _xlnet() -> Any:
    """Pads on the left, and has token types 0, 1 and 2."""
    specials = ["<unk>", "<s>", "</s>", "<cls>", "<sep>", "<pad>", "<mask>"]
    words = tiny._unigram(specials, "<unk>", "$A:0 <sep>:0 <cls>:2", "$A:0 <sep>:0 $B:1 <sep>:1 <cls>:2")
    names = {"unk": "<unk>", "bos": "<s>", "eos": "</s>", "cls": "<cls>", "sep": "<sep>", "pad": "<pad>"}
    tokenizer = tiny._named(words, True, mask="<mask>", **names)
    tokenizer.padding_side = "left"
    return tokenizer


def _fnet() -> Any:
    """Returns no mask."""
    tokenizer = tiny._wordpiece()
    tokenizer.model_input_names = ["input_ids", "token_type_ids"]
    return tokenizer


def _ends() -> Any:
    """Ends each text with </s>, and has no padding token."""
    words = tiny._bytes(["<s>", "</s>", "<unk>"])
    words.post_processor = tiny._around(words, "<s> $A </s>", "<s> $A </s> <s> $B </s>")
    return tiny._named(words, bos="<s>", eos="</s>", unk="<unk>")


def _typed_gpt2() -> Any:
    """Returns token types, as tokenizers without a class of their own do."""
    return tiny._named(tiny._bytes(["<|endoftext|>"]), True, bos="<|endoftext|>", eos="<|endoftext|>")


CONVBERT = {**tiny.SHAPE, "embedding_size": 32, "head_ratio": 2, "conv_kernel_size": 5}
BIG_BIRD = {**tiny.SHAPE, "attention_type": "block_sparse", "block_size": 4, "num_random_blocks": 1}
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
PHI3 = {**tiny._GROUPED, "rope_parameters": LONGROPE, "original_max_position_embeddings": 24}
LLAMA = {**tiny._GROUPED, "max_position_embeddings": 24, "rope_parameters": DYNAMIC}


def checkpoint(
    folder: Path, family: str, task: str, make: Any, shape: dict[str, Any], patch: pytest.MonkeyPatch
) -> Path:
    patch.setitem(tiny._FAMILIES, family, (make, shape))
    tiny.save(folder, family, task)
    if "pad_token_id" in shape:
        file = folder / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "pad_token_id": shape["pad_token_id"]}))
    return folder


def wanted(folder: Path, task: str) -> list[Any]:
    """transformers' own answer to each text alone, by a model that has just been loaded."""
    from transformers import pipeline

    answers: list[Any] = []
    for text in PROMPTS if task == WRITES else TEXTS:
        if task == WRITES:
            pipe = pipeline("text-generation", model=str(folder))
            answers.append(
                pipe(text, do_sample=False, max_new_tokens=9, return_full_text=False)[0]["generated_text"].strip()
            )
        elif task == CLASSIFIES:
            pipe = pipeline("text-classification", model=str(folder), top_k=None)
            (scores,) = pipe([text], truncation=True, max_length=64)
            answers.append({one["label"]: one["score"] for one in scores})
        else:
            pipe = pipeline("token-classification", model=str(folder))
            answers.append([(one["start"], one["entity"], float(one["score"])) for one in pipe(text)])
    return answers


def got(ask: Served, task: str, *texts: str) -> list[Any]:
    if task == WRITES:
        bodies = [{"prompt": text, "parameters": {"max_new_tokens": 9}} for text in texts]
        return [one["generated_text"].strip() for one in ask(*bodies)]
    if task == CLASSIFIES:
        return [{one["label"]: one["score"] for one in each} for each in ask(*({"text": t, "top_k": 9} for t in texts))]
    bodies = [{"text": text, "aggregation_strategy": "none"} for text in texts]
    return [[(one["start"], one["label"], one["score"]) for one in each] for each in ask(*bodies)]


def agree(ours: Any, theirs: Any) -> bool:
    return not differences("", json.loads(json.dumps(theirs)), json.loads(json.dumps(ours)), 1e-4)


CASES = {
    "convbert": (CLASSIFIES, "convbert", tiny._wordpiece, CONVBERT, True),
    "convbert-tags": (TAGS, "convbert", tiny._wordpiece, CONVBERT, True),
    "fnet": (CLASSIFIES, "fnet", _fnet, {**tiny.SHAPE, "type_vocab_size": 4}, True),
    "xlnet": (CLASSIFIES, "xlnet", _xlnet, {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 64}, True),
    "big_bird": (CLASSIFIES, "big_bird", tiny._wordpiece, BIG_BIRD, True),
    "longrope": (WRITES, "phi3", tiny._FAMILIES["phi3"][0], PHI3, True),
    "dynamic": (WRITES, "llama", tiny._gpt2, LLAMA, True),
    "no-pad": (CLASSIFIES, "mistral", _ends, {**tiny._GROUPED, "pad_token_id": None}, False),
    "no-pad-places": (CLASSIFIES, "gpt2", _ends, {**GPT2, "pad_token_id": None}, False),
    "types": (CLASSIFIES, "gpt2", _typed_gpt2, GPT2, False),
    "sliding": (WRITES, "mistral", lambda: tiny._sentencepiece(True), tiny._SLIDING, False),
}
UNTRACED = {"big_bird": "The trace differs", "longrope": "longrope, beyond 24", "dynamic": "dynamic, beyond 24"}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", CASES)
def test_answers_are_those_of_a_text_alone_in_any_order_and_beside_any_other(
    name: str, mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from handlers.inference import batches

    task, family, make, shape, alone = CASES[name]
    folder = checkpoint(tmp_path / "checkpoint", family, task, make, shape, monkeypatch)
    if mode == "torchscript" and name in UNTRACED:
        with pytest.raises(StageError, match=UNTRACED[name]):
            lay_out(tmp_path / "archive", folder, task, mode)
        return
    ask = Served(lay_out(tmp_path / "archive", folder, task, mode), task)
    assert ask.handler.model.alone is alone
    texts = PROMPTS if task == WRITES else TEXTS
    expected = dict(zip(texts, wanted(folder, task), strict=True))
    for text in (*texts, *reversed(texts)):
        assert agree(got(ask, task, text)[0], expected[text])
    for overhead in (batches.OVERHEAD, 1_000_000):
        monkeypatch.setattr(batches, "OVERHEAD", overhead)
        for text, ours in zip(texts, got(ask, task, *texts), strict=True):
            assert agree(ours, expected[text])


def test_drafts_that_transformers_makes_do_not_end_a_text_early(tmp_path: Path) -> None:
    folder = tiny.save(tmp_path / "checkpoint", "gpt2", WRITES)
    expected = wanted(folder, WRITES)
    own = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps({**own, "prompt_lookup_num_tokens": 3}))
    ask = Served(lay_out(tmp_path / "archive", folder, WRITES, "pretrained"), WRITES)
    assert got(ask, WRITES, *PROMPTS) == expected
