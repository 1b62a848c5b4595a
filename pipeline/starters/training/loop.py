"""The training loop, the tokenizer and the card that the two encoders' starters share."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from string import printable
from tempfile import TemporaryDirectory
from typing import Any

import torch

SEED = 7
BATCH = 32

HELDOUT = Path(__file__).parent / "heldout"


def words(name: str) -> dict[str, list[str]]:
    """A word list beside this module: lines of `kind: word, word, ...`; a kind may have several lines."""
    found: dict[str, list[str]] = {}
    for line in (Path(__file__).parent / name).read_text(encoding="utf-8").splitlines():
        kind, colon, rest = line.partition(":")
        if colon and " " not in kind and not line.startswith("#"):
            found.setdefault(kind.strip(), []).extend(word.strip() for word in rest.split(",") if word.strip())
    return found


def heldout(task: str) -> list[Any]:
    """Sentences written by hand, in other words than the generator's."""
    return list(json.loads((HELDOUT / f"{task}.json").read_text(encoding="utf-8")))


def repeatable(seed: int) -> None:
    """Have torch do the same again with the same seed: one thread, and no algorithm that is not deterministic."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


@contextmanager
def wordpiece(texts: Iterable[str], size: int, lowercase: bool) -> Iterator[Path]:
    """The path of a vocab.txt for transformers' BERT tokenizers, learnt from the texts; gone afterwards."""
    from tokenizers import BertWordPieceTokenizer

    tokenizer = BertWordPieceTokenizer(lowercase=lowercase, strip_accents=lowercase)
    lines = list(texts)
    letters = sorted({letter for line in [*lines, printable] for letter in tokenizer.normalize(line) if letter > " "})
    # The trainer breaks ties by a piece's number, and numbers continuations in the order of a random hash: given as
    # "special" they have fixed numbers, and the same text gives the same vocabulary.
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    tokenizer.train_from_iterator(lines, vocab_size=size, min_frequency=2, special_tokens=special, show_progress=False)
    with TemporaryDirectory() as folder:
        tokenizer.save_model(folder)
        yield Path(folder) / "vocab.txt"


def made_up(random_: random.Random) -> str:
    """A word that nobody knows."""
    starts = "b c d f g h j k l m n p r s t v w z br cl dr fl gr kr pl sh st th tr".split()
    return "".join(random_.choice(starts) + random_.choice("aeiou") for _ in range(random_.randint(1, 3))) + (
        random_.choice(["", "n", "r", "s", "l", "t", "ck", "nd", "m"])
    )


def run(
    model: Any,
    batches: Callable[[random.Random], dict[str, torch.Tensor]],
    steps: int,
    rate: float,
    say: Callable[[str], None] = print,
) -> None:
    """AdamW with warm-up and linear decay over `steps` batches, each made by `batches` from a seeded generator."""
    random_ = random.Random(SEED)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01)
    warm = max(1, steps // 20)
    plan = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warm, max(0.0, (steps - step) / (steps - warm)))
    )
    model.train()
    began, total = time.perf_counter(), 0.0
    for step in range(1, steps + 1):
        loss = model(**batches(random_)).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        plan.step()
        total += float(loss.detach())
        if step % 100 == 0:
            say(f"step {step} of {steps}, loss {total / 100:.3f}, {time.perf_counter() - began:.0f} s")
            total = 0.0
    model.eval()


def card(out: Path, task: str, pipeline_tag: str, base: str, text: str) -> None:
    """The model card: what the model is, its score, what it cannot do, how to make it again."""
    (out / "README.md").write_text(
        f"""---
license: apache-2.0
language: en
pipeline_tag: {pipeline_tag}
library_name: transformers
tags: [{base}, starter]
---

# Starter model: {task}

{text}

Made by `python -m mar_pipeline.starters.training {task}`, with a fixed seed, from nothing but text that the script generates.
It is there to try `mar` with: for real work, use a real model.
""",
        encoding="utf-8",
    )
