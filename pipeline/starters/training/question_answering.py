"""Trains the starter for question answering: a tiny RoBERTa, on generated paragraphs with questions.

`train(out)` writes a complete folder for `from_pretrained`. The seed is fixed, and on one CPU thread the same versions of the
libraries give the same weights. Scores are taken on paragraphs written by hand, which no generated shape was made from.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import RobertaConfig, RobertaForQuestionAnswering, RobertaTokenizerFast

from mar_pipeline.starters.training import answer_score, byte_pairs
from mar_pipeline.starters.training.answers import Example, Writer
from mar_pipeline.starters.training.loop import repeatable
from mar_pipeline.starters.training.matching_heads import seed_heads

SEED = 20
STEPS = 2400
BATCH = 32
PEAK = 1.5e-3
VOCAB = 3000
_HERE = Path(__file__).parent
_CHUNK = 20
"""Batches that are written at once and put together by length."""


def train(out: Path, steps: int = STEPS) -> None:
    """Trains, scores and writes the model, its tokenizer and its card into `out`."""
    repeatable(SEED)
    tokenizer = _tokenizer()
    config = RobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=160,
        num_hidden_layers=4,
        num_attention_heads=5,
        intermediate_size=320,
        max_position_embeddings=258,
        type_vocab_size=1,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    model = RobertaForQuestionAnswering(config)
    seed_heads(model)
    _fit(model, tokenizer, steps)
    model.eval()
    dev = answer_score.score(model, tokenizer, _HERE / "heldout" / "question_answering.dev.json")
    held = answer_score.score(model, tokenizer, _HERE / "heldout" / "question_answering.json")
    print(f"dev {dev}\nheld out {held}")
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    (out / "README.md").write_text(_card(dev, held, steps), encoding="utf-8")


def _tokenizer() -> Any:
    writer = Writer(SEED)
    words = [word for fillers in writer.fill.words.values() for word in fillers]
    lines = [f"{example.question} {example.context}" for example in (writer.example() for _ in range(6000))]
    lines += [" " + " ".join(words)] * 20
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    return byte_pairs.learn(RobertaTokenizerFast, lines, VOCAB, special, add_prefix_space=True)


def _batches(tokenizer: Any, kinds: dict[str, int], steps: int) -> Iterator[dict[str, Tensor]]:
    """Batches of [BATCH, T]: short paragraphs first, then ones of up to five statements."""
    writer = Writer(SEED + 1)
    order = random.Random(SEED)
    done = 0
    while done < steps:
        share = done / steps
        longest = 1 if share < 0.08 else 2 if share < 0.2 else 3 if share < 0.4 else 5
        examples = [writer.example(longest) for _ in range(BATCH * _CHUNK)]
        examples.sort(key=lambda example: len(example.context))
        batches = [examples[at : at + BATCH] for at in range(0, len(examples), BATCH)]
        order.shuffle(batches)
        for batch in batches[: steps - done]:
            yield _encode(tokenizer, kinds, batch)
            done += 1


def _encode(tokenizer: Any, kinds: dict[str, int], batch: list[Example]) -> dict[str, Tensor]:
    coded = tokenizer([e.question for e in batch], [e.context for e in batch], padding=True, truncation="only_second",
                      max_length=256, return_tensors="pt")  # fmt: skip
    shape = coded["input_ids"].shape
    starts, ends = torch.zeros(len(batch), dtype=torch.long), torch.zeros(len(batch), dtype=torch.long)
    kind, near = torch.full(shape, -100), torch.full(shape, -100)
    for row, example in enumerate(batch):
        piece = coded.encodings[row]

        def token(at: int, piece: Any = piece) -> int:
            return int(piece.char_to_token(at, 1) or 0)

        starts[row], ends[row] = token(example.start), token(example.end - 1)
        own = torch.tensor([part == 1 for part in piece.sequence_ids])
        kind[row, own] = 0
        near[row, own] = 0
        for start, end, name in example.spans:
            kind[row, token(start) : token(end - 1) + 1] = kinds.setdefault(name, len(kinds) + 1)
        near[row, token(example.evidence[0]) : token(example.evidence[1] - 1) + 1] = 1
    return {
        "ids": coded["input_ids"],
        "mask": coded["attention_mask"],
        "starts": starts,
        "ends": ends,
        "kind": kind,
        "near": near,
    }


def _fit(model: RobertaForQuestionAnswering, tokenizer: Any, steps: int) -> None:
    """Learns where the answer starts and ends; beside it, for a denser signal, each token's kind and the answer's sentence."""
    kinds: dict[str, int] = {}
    width = model.config.hidden_size
    kind_head, near_head = nn.Linear(width, 80), nn.Linear(width, 2)
    weights = [*model.parameters(), *kind_head.parameters(), *near_head.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=PEAK, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps))
    loss_of = nn.CrossEntropyLoss()
    began, seen, right = time.monotonic(), 0.0, 0
    model.train()
    for step, batch in enumerate(_batches(tokenizer, kinds, steps), 1):
        hidden = model.roberta(batch["ids"], attention_mask=batch["mask"], output_hidden_states=True).hidden_states
        logits = model.qa_outputs(hidden[-1]).masked_fill(batch["mask"][..., None] == 0, -1e4)
        start, end = logits.unbind(-1)
        answer = (loss_of(start, batch["starts"]) + loss_of(end, batch["ends"])) / 2
        kind = loss_of(kind_head(hidden[2]).flatten(0, 1), batch["kind"].flatten())
        near = loss_of(near_head(hidden[-2]).flatten(0, 1), batch["near"].flatten())
        loss = answer + 0.3 * kind + 0.5 * near
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        scheduler.step()
        seen += answer.item()
        right += int(((start.argmax(1) == batch["starts"]) & (end.argmax(1) == batch["ends"])).sum())
        if step % 50 == 0 or step == steps:
            every = (step - 1) % 50 + 1
            print(f"step {step}/{steps}  loss {seen / every:.3f}  kind {kind.item():.3f}  sentence {near.item():.3f}  "
                  f"exact {right / every / BATCH:.1%}  {time.monotonic() - began:.0f} s", flush=True)  # fmt: skip
            seen, right = 0.0, 0


def _rate(step: int, steps: int) -> float:
    """Share of the peak rate: up over 40 steps, level, then down along a cosine over the last two thirds."""
    if step < 40:
        return (step + 1) / 40
    along = max(0.0, (step / steps - 0.35) / 0.65)
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * along))


def _card(dev: answer_score.Score, held: answer_score.Score, steps: int) -> str:
    return f"""---
license: apache-2.0
language: en
pipeline_tag: question-answering
---
# Starter: answers out of a text

A tiny RoBERTa (4 layers of width 160) that finds the answer to a question in a short, plain, everyday English paragraph. It
ships with the package so that an archive can be built and served without a download.

## Score

| questions written by hand | number | exact match | token F1 |
| --- | --- | --- | --- |
| held out | {held.count} | {held.exact:.1f} % | {held.f1:.1f} % |
| development (looked at while the generator was written) | {dev.count} | {dev.exact:.1f} % | {dev.f1:.1f} % |

The questions are in `pipeline/starters/training/heldout/`. They are worded by hand and use names and turns of phrase of their
own; "exact match" ignores case, punctuation and articles.

## Training

From random weights, {steps} steps of {BATCH} paragraphs of one to six sentences, all written by a generator: people, places,
things, times and prices, with made-up names and words among them. No other text and no other model was used.

## What it can do

Who, where, when, what, how many, how much, why and what colour, about facts that stand in one plain sentence, also where that
sentence says "he" or "she". Answers leave out the preposition: "a small shop in Lisbon", not "in a small shop in Lisbon".

## What it cannot do

It knows nothing of the world, does not count, compare or reason over several sentences, and always answers: it cannot say that
the text holds no answer. Long, technical or literary text and rarer words are beyond it. Use it to try the pipeline, not to
answer people.

## Rebuild

    python -m mar_pipeline.starters.training question_answering
"""
