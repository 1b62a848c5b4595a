"""(b): the model alone in a loop, without any server, in a process of its own.

What transformers gives, as it gives it: tokenizer and model of the checkpoint, batches padded to their longest text,
torch's own number of threads.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from .load import Sample


class Alone:
    """The process, which waits for what to measure, so that loading is no part of it; a context manager."""

    def __init__(self, checkpoint: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.alone", str(checkpoint)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Alone:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def run(self, texts: list[str], *, batch: int, max_length: int, seconds: float, least: int) -> Sample:
        """Batches of `texts`, over and over, for `seconds` and `least` texts. Latencies are those of batches."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        asked = {"texts": texts, "batch": batch, "max_length": max_length, "seconds": seconds, "least": least}
        self.process.stdin.write(json.dumps(asked) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("the process of the model alone ended; what it said is above")
        return Sample(**json.loads(line))


def _serve(checkpoint: str) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(checkpoint)
    model: Any = AutoModelForSequenceClassification.from_pretrained(checkpoint).eval()
    names = model.config.id2label

    def label(texts: list[str], max_length: int) -> list[str]:
        inputs = tokenizer(texts, padding=True, truncation=True, max_length=max_length, return_tensors="pt")
        with torch.inference_mode():
            logits = model(**inputs).logits
        return [names[best] for best in logits.argmax(dim=1).tolist()]

    for line in sys.stdin:
        asked = json.loads(line)
        texts, batch, max_length = asked["texts"], asked["batch"], asked["max_length"]
        at, units, latencies = 0, 0, []
        label(texts[:batch], max_length)
        start = now = time.perf_counter()
        while now - start < asked["seconds"] or units < asked["least"]:
            chosen = [texts[(at + step) % len(texts)] for step in range(batch)]
            begin = time.perf_counter()
            units += len(label(chosen, max_length))
            now = time.perf_counter()
            latencies.append(now - begin)
            at += batch
        print(json.dumps({"seconds": now - start, "units": units, "latencies": latencies}), flush=True)


if __name__ == "__main__":
    _serve(sys.argv[1])
