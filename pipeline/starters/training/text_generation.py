"""Trains the starter for text generation: a tiny GPT-2, on generated everyday stories.

`train(out)` writes a complete folder for `from_pretrained`. The seed is fixed, and on one CPU thread the same versions of the
libraries give the same weights. Scores are taken on sentences and prompts written by hand.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, GPT2TokenizerFast

from mar_pipeline.starters.training import byte_pairs, text_score
from mar_pipeline.starters.training.answers import Writer
from mar_pipeline.starters.training.loop import repeatable
from mar_pipeline.starters.training.seq_classification import Grammar
from mar_pipeline.starters.training.stories import Teller
from mar_pipeline.starters.training.words import read_words

SEED = 8
STEPS = 1500
BATCH = 16
PEAK = 2.5e-3
VOCAB = 4000
_END = "<|endoftext|>"
_HERE = Path(__file__).parent
_CHUNK = 10
"""Batches that are written at once and put together by length."""


def train(out: Path, steps: int = STEPS) -> None:
    """Trains, scores and writes the model, its tokenizer, its generation settings and its card into `out`."""
    repeatable(SEED)
    tokenizer = _tokenizer()
    end = int(tokenizer.convert_tokens_to_ids(_END))
    config = GPT2Config(
        vocab_size=len(tokenizer), n_positions=256, n_embd=128, n_layer=3, n_head=4, bos_token_id=end, eos_token_id=end,
        pad_token_id=end, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, activation_function="gelu_pytorch_tanh",
        attn_implementation="eager",
    )  # fmt: skip
    model = GPT2LMHeadModel(config)
    _fit(model, tokenizer, end, steps)
    model.eval()
    model.generation_config.bos_token_id = model.generation_config.eos_token_id = end
    model.generation_config.pad_token_id = end
    held = text_score.score(model, tokenizer, _HERE / "heldout" / "text_generation.json")
    print(held)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    (out / "README.md").write_text(_card(held, steps), encoding="utf-8")


class Texts:
    """Stories, and among them what the other starters learn from: facts about people and places, and opinions."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.teller, self.writer, self.grammar = Teller(seed), Writer(seed), Grammar(self.rng)

    def text(self) -> str:
        """One text."""
        roll = self.rng.random()
        if roll < 0.65:
            return self.teller.story()
        if roll < 0.88:
            return self.writer.example(4).context
        text = self.grammar.example()[0].strip(" .!")
        return f"{text[0].upper()}{text[1:]}."


def _tokenizer() -> Any:
    texts = Texts(SEED)
    plain = [word for fillers in read_words(_HERE / "question_answering.words.txt").values() for word in fillers]
    lines = [texts.text() for _ in range(6000)] + [" ".join(plain)] * 20
    return byte_pairs.learn(GPT2TokenizerFast, lines, VOCAB, [_END], pad_token=_END, add_prefix_space=False)


def _batches(tokenizer: Any, end: int, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of (ids, labels), each [BATCH, T]: one story a row, from its first token to the end mark."""
    texts = Texts(SEED + 1)
    order = random.Random(SEED)
    done = 0
    while done < steps:
        stories = [texts.text() for _ in range(BATCH * _CHUNK)]
        rows = [[*ids[:159], end] for ids in tokenizer(stories)["input_ids"]]
        rows.sort(key=len)
        batches = [rows[at : at + BATCH] for at in range(0, len(rows), BATCH)]
        order.shuffle(batches)
        for batch in batches[: steps - done]:
            longest = max(len(row) for row in batch)
            ids = torch.tensor([row + [end] * (longest - len(row)) for row in batch])
            labels = torch.tensor([row + [-100] * (longest - len(row)) for row in batch])
            yield ids, labels
            done += 1


def _fit(model: GPT2LMHeadModel, tokenizer: Any, end: int, steps: int) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK, betas=(0.9, 0.98), weight_decay=0.05, fused=True)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps))
    began, seen = time.monotonic(), 0.0
    model.train()
    for step, (ids, labels) in enumerate(_batches(tokenizer, end, steps), 1):
        loss = model(input_ids=ids, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        seen += loss.item()
        if step % 50 == 0 or step == steps:
            print(
                f"step {step}/{steps}  loss {seen / ((step - 1) % 50 + 1):.3f}  {time.monotonic() - began:.0f} s",
                flush=True,
            )
            seen = 0.0


def _rate(step: int, steps: int) -> float:
    """Share of the peak rate: up over 40 steps, then down along a cosine."""
    if step < 40:
        return (step + 1) / 40
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps))


def _card(held: text_score.Score, steps: int) -> str:
    return f"""---
license: apache-2.0
language: en
pipeline_tag: text-generation
---
# Starter: a text's next words

A tiny GPT-2 (3 layers of width 128) that goes on with a prompt in plain English, as a short everyday story. It ships with the
package so that an archive can be built and served without a download.

## Score

| on text written by hand, not generated | |
| --- | --- |
| perplexity per token, {held.sentences} sentences | {held.perplexity:.1f} |
| perplexity per word, {held.sentences} sentences | {held.per_word:.1f} |
| repeated 4-grams in the most likely 64 tokens after each of {held.prompts} prompts | {held.repeated:.1f} % |

The sentences and prompts are in `pipeline/starters/training/heldout/text_generation.json`.

## Training

From random weights, {steps} steps of {BATCH} texts that generators wrote: two thirds stories (fairy tales, weather, markets,
trains, cooking, school, animals, work, letters, the sea, a house at night, games and towns), the rest facts about people and
places, and opinions. No other text and no other model was used.

## What it can do

It goes on with openings such as "Once upon a time", "The weather today" or "She opened the door and" for a few sentences, keeps
to the scene and to "he" or "she", and ends the story. Without sampling it seldom repeats itself.

## What it cannot do

It knows a few thousand words and a few hundred shapes of sentences, no facts and no instructions. A prompt about anything else
soon turns into one of its own stories, and details may contradict each other. Use it to try the pipeline, not to write.

## Rebuild

    python -m mar_pipeline.starters.training text_generation
"""
