"""Byte-level BPE tokenizers, learnt from lines of text, as RoBERTa and GPT-2 come with."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tokenizers import ByteLevelBPETokenizer


def learn(made: Any, lines: Iterable[str], size: int, special: list[str], **settings: Any) -> Any:
    """A transformers tokenizer of the class `made` with `size` tokens, the special ones first."""
    learner = ByteLevelBPETokenizer(add_prefix_space=True)
    learner.train_from_iterator(lines, vocab_size=size, min_frequency=2, special_tokens=special, show_progress=False)
    with TemporaryDirectory() as folder:
        learner.save_model(folder)
        vocab, merges = str(Path(folder) / "vocab.json"), str(Path(folder) / "merges.txt")
        # transformers 4 calls the files vocab_file and merges_file.
        files = {"vocab": vocab, "merges": merges, "vocab_file": vocab, "merges_file": merges}
        return made(**files, model_max_length=256, **settings)
