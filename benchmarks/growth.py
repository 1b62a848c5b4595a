"""What a worker's memory does over many requests of all lengths, and what bounding it costs (Linux).

    python -m benchmarks.growth ARCHIVE.mar... [--requests 20000] [--served] [--against 1024]

An archive's handler answers in a process of its own, in batches of one to eight, and its memory is read after every
thousand requests: "flat" means that the second half of them adds less than 2 %. Beside it runs the same with another
capacity of oneDNN's cache of kernels (`--against`; 1024 is oneDNN's own), and then both answer short and mixed texts in
turn. With `--served`, a TorchServe's worker is asked instead, by the archive's own settings alone.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from mar_pipeline.serving.server import Server

from .memory import memory, workers

CAPACITY = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"
FLAT = 0.02
"""What the second half of the requests may add, in parts of the memory after the first half."""

WORDS = tuple(re.findall(r"\w+", "the soup was cold but Maria from Lisbon smiled and went home by train yesterday"))
LENGTHS = {"all": (1, 400), "short": (8, 14), "mixed": (8, 100)}
"""Words of a text, by workload; those of `all` are as frequent each, the others' short ones more."""


def body(draw: random.Random, task: str, workload: str) -> dict[str, Any]:
    """A request of a task."""
    low, high = LENGTHS[workload]
    count = draw.randint(low, high) if workload == "all" else round(low * (high / low) ** draw.random())
    text = " ".join(draw.choice(WORDS) for _ in range(count))
    if task == "text_generation":
        prompt = " ".join(text.split()[: max(1, count // 8)])
        return {"prompt": prompt, "parameters": {"max_new_tokens": draw.randint(1, 16)}}
    return {"question": "Who smiled?", "context": text} if task == "question_answering" else {"text": text}


def bodies(seed: int, task: str, workload: str, requests: int) -> Iterator[list[dict[str, Any]]]:
    """Batches of one to eight requests, of eight where not all lengths are wanted."""
    draw = random.Random(seed)
    while requests > 0:
        count = min(requests, draw.randint(1, 8) if workload == "all" else 8)
        yield [body(draw, task, workload) for _ in range(count)]
        requests -= count


def _answer() -> None:
    """The child: the unpacked archive in the working folder, asked as it is told on standard input."""
    from mar_pipeline.portable.emulator import load

    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    handler, context = load(Path.cwd())
    for line in sys.stdin:
        asked = json.loads(line)
        began = time.perf_counter()
        for batch in bodies(asked["seed"], handler.task.name, asked["workload"], asked["requests"]):
            context.statuses = {}
            handler.handle([{"body": one} for one in batch], context)
            if context.statuses:
                raise RuntimeError(f"a request was refused: {context.statuses}")
        print(json.dumps({"seconds": time.perf_counter() - began, "rss": memory(os.getpid()).rss}), file=out)


@contextlib.contextmanager
def _child(folder: Path, capacity: str | None) -> Iterator[Any]:
    """Ask it: (workload, requests, seed) -> seconds and MB."""
    env = {name: value for name, value in os.environ.items() if name != CAPACITY}
    env |= {CAPACITY: capacity} if capacity else {}
    env["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).resolve().parents[1]), env.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "benchmarks.growth", "--child"]
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    told, answers = process.stdin, process.stdout

    def ask(workload: str, requests: int, seed: int) -> dict[str, float]:
        told.write(json.dumps({"workload": workload, "requests": requests, "seed": seed}) + "\n")
        told.flush()
        return dict(json.loads(answers.readline()))

    try:
        yield ask
    finally:
        told.close()
        process.wait(30)
        answers.close()


def told(thousands: int, size: float) -> float:
    """The size, which whoever waits is told."""
    print(f"  after {thousands},000 requests {size:.0f} MB", file=sys.stderr, flush=True)
    return size


def report(name: str, sizes: list[float]) -> None:
    """A line of memory after each thousand, and whether it is flat."""
    half = len(sizes) // 2
    added = sizes[-1] / sizes[half] - 1
    told = " ".join(f"{size:.0f}" for size in sizes)
    print(f"{name}: MB {told}\n  the second half adds {added:+.1%}: {'flat' if added < FLAT else 'GROWS'}", flush=True)


def in_process(archive: Path, requests: int, against: str, pairs: int) -> None:
    """Memory by both capacities, and what the archive's own costs in speed."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / archive.stem
        with zipfile.ZipFile(archive) as opened:
            opened.extractall(folder)
        with _child(folder, None) as ours, _child(folder, against) as theirs:
            for name, ask in (("as built", ours), (f"{CAPACITY}={against}", theirs)):
                sizes = [told(0, ask("all", 1, 0)["rss"])]
                for seed in range(requests // 1000):
                    sizes.append(told(seed + 1, ask("all", 1000, seed)["rss"]))
                report(f"{archive.stem}, {name}", sizes)
            for workload in ("short", "mixed", "all"):
                ratios = []
                for seed in range(pairs):
                    order = (ours, theirs) if seed % 2 else (theirs, ours)
                    times = {ask: ask(workload, 200, 100 + seed)["seconds"] for ask in order}
                    ratios.append(times[theirs] / times[ours])
                print(
                    f"{archive.stem}, {workload} texts: as built {statistics.median(ratios):.3f} times as fast as by "
                    f"{against} ({min(ratios):.2f} to {max(ratios):.2f})",
                    flush=True,
                )


def served(archive: Path, requests: int) -> None:
    """Memory of a TorchServe's worker."""
    with zipfile.ZipFile(archive) as opened:
        task = json.loads(opened.read("MAR-INF/MANIFEST.json"))["model"]["handler"].split(".")[0].split(":")[0]
    with Server([archive]) as server, ThreadPoolExecutor(8) as pool:
        server.wait_ready()
        (pid,) = workers(server, archive.stem)
        sizes = [told(0, memory(pid).rss)]
        for seed in range(requests // 1000):
            asked = [one for batch in bodies(seed, task, "all", 1000) for one in batch]
            codes = {
                reply.status_code for reply in pool.map(lambda one: server.client.predict(archive.stem, one), asked)
            }
            if codes != {200}:
                raise RuntimeError(f"answers of {codes}")
            sizes.append(told(seed + 1, memory(pid).rss))
        report(f"{archive.stem}, served", sizes)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archives", type=Path, nargs="*")
    parser.add_argument("--requests", type=int, default=20_000, help="of all lengths (%(default)s)")
    parser.add_argument("--against", default="1024", help="another capacity (%(default)s, which is oneDNN's own)")
    parser.add_argument("--pairs", type=int, default=9, help="of runs whose speed is compared (%(default)s)")
    parser.add_argument("--served", action="store_true", help="ask a TorchServe")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        _answer()
    for archive in asked.archives:
        if asked.served:
            served(archive, asked.requests)
        else:
            in_process(archive, asked.requests, asked.against, asked.pairs)


if __name__ == "__main__":
    main()
