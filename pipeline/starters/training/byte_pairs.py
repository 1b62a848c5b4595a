"""Byte-level BPE tokenizers, learnt from lines of text and saved as the files that RoBERTa and GPT-2 come with."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tokenizers.implementations import ByteLevelBPETokenizer
from transformers import GPT2TokenizerFast, RobertaTokenizerFast


def learn(lines: Iterable[str], size: int, special: list[str], folder: Path) -> tuple[Path, Path]:
    """Learns `size` tokens, the special ones first; returns the paths of vocab.json and merges.txt in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    learner = ByteLevelBPETokenizer(add_prefix_space=True)
    learner.train_from_iterator(lines, vocab_size=size, min_frequency=2, special_tokens=special, show_progress=False)
    learner.save_model(str(folder))
    return folder / "vocab.json", folder / "merges.txt"


def roberta(vocab: Path, merges: Path) -> RobertaTokenizerFast:
    """A tokenizer that writes <s> A </s></s> B </s>, and reads a text's first word like any other."""
    return RobertaTokenizerFast(vocab=str(vocab), merges=str(merges), vocab_file=str(vocab), merges_file=str(merges),
                                add_prefix_space=True, model_max_length=256)  # fmt: skip


def gpt2(vocab: Path, merges: Path) -> GPT2TokenizerFast:
    """A tokenizer whose only special token is <|endoftext|>, which also pads."""
    return GPT2TokenizerFast(vocab=str(vocab), merges=str(merges), vocab_file=str(vocab), merges_file=str(merges),
                             pad_token="<|endoftext|>", add_prefix_space=False, model_max_length=256)  # fmt: skip
