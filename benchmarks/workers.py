"""What forking workers from one server saves: cold builds of tiny models, beside builds whose workers each start alone.

    python -m benchmarks.workers [--configs 20] [--rounds 3]

Both ways build in turn, each with an empty cache. Prints a Markdown table of wall-clock seconds (medians) with their
ratio, and the machine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from . import machine

WAYS = {
    "forked": "from mar_pipeline.__main__ import main; main()",
    "programs": "from mar_pipeline.workers import warm; warm._possible = False; "
    "from mar_pipeline.__main__ import main; main()",
}


def checkpoint(folder: Path, seed: int) -> Path:
    """A BERT of two small layers with random weights, and the starter's tokenizer."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    from mar_pipeline.model.address import STARTERS

    torch.manual_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(STARTERS / "seq_classification")
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def config(file: Path, model: Path) -> Path:
    """A config of an archive with the file's name."""
    handler = {"mode": "sequence_classification", "model_name": str(model)}
    file.write_text(json.dumps({"handler": handler, "archive": {"name": file.stem}}), encoding="utf-8")
    return file


def seconds(way: str, configs: list[Path]) -> float:
    """Wall-clock seconds of a cold build of all of them."""
    with tempfile.TemporaryDirectory() as folder:
        words = ["build", *map(str, configs), "--out", f"{folder}/out", "--cache", f"{folder}/cache", "--offline"]
        start = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", WAYS[way], *words], capture_output=True, text=True, check=False)
        took = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(f"the build failed:\n{done.stderr}")
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configs", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    facts = machine.facts()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = [
            config(folder / f"tiny-{number}.yaml", checkpoint(folder / f"model-{number}", number))
            for number in range(asked.configs)
        ]
        rows = []
        for count in (1, asked.configs):
            took: dict[str, list[float]] = {way: [] for way in WAYS}
            for _ in range(asked.rounds):
                for way in WAYS:
                    took[way].append(seconds(way, made[:count]))
            forked, programs = (statistics.median(took[way]) for way in WAYS)
            rows.append(f"| {count} | {programs:.1f} s | {forked:.1f} s | {forked / programs:.2f} |")
    print("| configs | a program a worker | forked | ratio |\n| --- | --- | --- | --- |", *rows, sep="\n")
    print(f"\n{machine.line(facts)}; {asked.rounds} rounds")


if __name__ == "__main__":
    main()
