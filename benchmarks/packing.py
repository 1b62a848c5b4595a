"""What packing costs, with a checkpoint of bert-base's shape (440 MB, random weights).

    python -m benchmarks.packing [--rounds 7] [--folder FOLDER]

Prints Markdown: seconds of `cp` of the weights, of the archive's file being written, of the whole archive stage, and of
torch-model-archiver, in turn in one run, with their ratios to cp; what a cold build writes to disk and takes of memory
(verify aside: its result is kept, and found again since the archive is the same bytes); and the machine.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from mar_pipeline.archive.writer import Member, write
from mar_pipeline.files import atomic
from mar_pipeline.files.tree import Tree, scan

from .machine import facts, line

CP = "cp of the weights"
SLOW = 2
"""Rounds of what takes ten times as long as the rest."""

# Run in a process of its own, whose children's reads and writes the kernel adds to its own when they end (proc(5)).
_BUILD = """
import json, resource, sys
from pathlib import Path
from mar_pipeline.__main__ import run
code = run(sys.argv[1:])
written = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())["write_bytes"]
peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
print(json.dumps({"code": code, "written": int(written), "peak": peak * 1024}), file=sys.stderr)
"""


def make_checkpoint(folder: Path) -> Path:
    """A classifier of bert-base's shape in `folder`, made in another process."""
    if not (folder / "tokenizer.json").exists():
        command = [sys.executable, "-m", "benchmarks.checkpoints", "bert", "base", str(folder)]
        subprocess.run(command, check=True, stdout=sys.stderr)
    return folder


def timed(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def build(checkpoint: Path, cache: Path, out: Path) -> dict[str, Any]:
    """A build's `--json`, with the bytes that it wrote and the most memory that one of its processes took."""
    words = ["build", "--task", "seq_classification", "--model", str(checkpoint), "--set", "archive.name=bert"]
    words += ["--cache", str(cache), "--out", str(out), "--json"]
    done = subprocess.run([sys.executable, "-c", _BUILD, *words], check=True, capture_output=True, text=True)
    costs = json.loads(done.stderr.splitlines()[-1])
    if costs["code"]:
        sys.exit(done.stderr)
    (archive,) = json.loads(done.stdout)["archives"]
    return {**archive, **costs, "seconds": {one["stage"]: one["seconds"] for one in archive["stages"]}}


def archiver(checkpoint: Path, folder: Path, form: str) -> Callable[[], Any]:
    """torch-model-archiver with the same weights."""

    def run() -> None:
        (folder / "tmp").mkdir(parents=True)
        (folder / "handler.py").write_text("class Handler: pass\n")
        words = ["--model-name", "bert", "--version", "1.0", "--handler", "handler.py", "--archive-format", form]
        words += ["--serialized-file", str(checkpoint / "model.safetensors"), "--export-path", str(folder)]
        command = [sys.executable, "-m", "model_archiver.model_packaging", *words]
        env = {**os.environ, "TMPDIR": str(folder / "tmp")}
        subprocess.run(command, check=True, cwd=folder, env=env, capture_output=True)

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--folder", type=Path, default=None, help="where to work; on the disk to measure")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        measure(Path(name), options.rounds)


def cp(source: Path, folder: Path) -> Callable[[], Any]:
    """What every other way to write the same bytes is held against."""
    return lambda: subprocess.run(["cp", "--reflink=never", str(source), str(folder / "copy")], check=True)


def hashed(file: Path) -> str:
    """A file's SHA-256, by the standard library."""
    with file.open("rb") as stream:
        found = hashlib.sha256()
        while chunk := stream.read(1 << 20):
            found.update(chunk)
        return found.hexdigest()


def kept_verify(first: Path, cache: Path) -> Path:
    """A cache that is empty but for the gate's result."""
    cache.mkdir(parents=True)
    for mark in ("CACHEDIR.TAG", "in-use.lock"):
        shutil.copy2(first / mark, cache / mark)
    for file in (first / "keys" / "verify").iterdir():
        tree = atomic.read(file)["tree"]
        listing = first / "trees" / tree[:2] / f"{tree}.json"
        blobs = [first / "blobs" / entry.sha256[:2] / entry.sha256 for entry in Tree.from_json(listing.read_text())]
        for one in (file, listing, *blobs):
            (cache / one.relative_to(first)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(one, cache / one.relative_to(first))
    return cache


def measure(folder: Path, rounds: int) -> None:
    """Measure in `folder`, and print."""
    checkpoint = make_checkpoint(folder / "checkpoint")
    weights = checkpoint / "model.safetensors"
    first = build(checkpoint, folder / "first", folder / "out")
    member = Member(scan(weights, weights.name), weights)
    times: dict[str, list[float]] = {}
    built = []

    def note(what: str, seconds: float) -> None:
        times.setdefault(what, []).append(seconds)
        print(f"{what}: {seconds:.3f} s", file=sys.stderr)

    for number in range(rounds):  # in turn, so that a disk that slows down slows all of them
        place = folder / "round"
        place.mkdir()
        note(CP, timed(cp(weights, place)))
        note("written, and CRC-32 checked", timed(partial(write, place / "written", member, lambda _: None)))
        note("SHA-256 alone", timed(partial(hashed, weights)))
        built.append(build(checkpoint, kept_verify(folder / "first", place / "cache"), place / "out"))
        assert built[-1]["sha256"] == first["sha256"]
        note("the archive stage, all CRC-32 checked and SHA-256 taken", built[-1]["seconds"]["archive"])
        note("torch-model-archiver, zip-store", timed(archiver(checkpoint, place / "stored", "zip-store")))
        if number < SLOW:
            note("torch-model-archiver, default", timed(archiver(checkpoint, place / "deflated", "default")))
        shutil.rmtree(place)
        os.sync()
    report(times, built, weights.stat().st_size)


def report(times: dict[str, list[float]], built: list[dict[str, Any]], size: int) -> None:
    """Print the table, medians, and what the builds wrote and took."""
    one = statistics.median(times[CP])
    print(f"{size / 1e6:.0f} MB of weights, medians of {len(times[CP])} rounds\n")
    print("| what | seconds | times cp |\n| --- | --- | --- |")
    for what, found in times.items():
        ratios = statistics.median(value / base for value, base in zip(found, times[CP], strict=False))
        print(f"| {what} | {statistics.median(found):.3f} | {ratios:.2f} |")
    written = statistics.median(one["written"] for one in built) / size
    peak = max(one["peak"] for one in built) / 1e6
    print(f"\nA cold build, verify aside: writes {written:.3f} times the weights, takes {peak:.0f} MB at most")
    print(f"(cp {one:.3f} s; {line(facts())})")


if __name__ == "__main__":
    main()
