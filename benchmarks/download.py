"""What a download costs: a checkpoint of bert-base's shape (440 MB, random weights) from a stand-in for the Hub's
server on the loopback, in a process of its own.

    python -m benchmarks.download [--rounds 7] [--folder FOLDER]

Prints Markdown: seconds of the client's own snapshot_download and of ours (which takes SHA-256 and CRC-32 of all that
comes), each in a fresh process with an empty Hugging Face cache, in turn in one run, with the ratio; the most memory
that each process took; the same again with everything fetched; and the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from .machine import facts, line
from .packing import make_checkpoint

REPO = "org/bert-base"

_END = """
import json, resource
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"seconds": seconds, "peak": peak}))
"""

_CLIENT = f"""
import time
from huggingface_hub import snapshot_download
start = time.perf_counter()
snapshot_download("{REPO}")
seconds = time.perf_counter() - start
{_END}
"""

_OURS = f"""
import sys, time
from pathlib import Path
import huggingface_hub.file_download
from mar_pipeline.model.selection import select
from mar_pipeline.sources.hub.repository import Hub
from mar_pipeline.cache.store import Store
store = Store(Path(sys.argv[1]))
start = time.perf_counter()
source = Hub(store, "{REPO}", None, no_network=False)
files = select(source.sizes(), source.where, source.text).files
source.fetch(files, lambda *_: None)
seconds = time.perf_counter() - start
{_END}
"""

NAMES = {"client": "snapshot_download", "ours": "mar-pipeline, all SHA-256 and CRC-32 taken"}


def measured(code: str, home: Path, address: str) -> dict[str, Any]:
    """What a process of its own told of its download into `home`."""
    env = {
        **os.environ,
        "HF_HOME": str(home / "hf"),
        "HF_ENDPOINT": address,
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    command = [sys.executable, "-c", code, str(home / "cache")]
    done = subprocess.run(command, env=env, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def measure(folder: Path, rounds: int) -> None:
    """Measure in `folder`, and print."""
    checkpoint = make_checkpoint(folder / "checkpoint")
    command = [sys.executable, "-m", "tests.support.stand_ins.hub", REPO, str(checkpoint)]
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in (*NAMES, "again")}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        address = json.loads(server.stdout.readline())["address"]
        for _ in range(rounds):  # in turn, so that a disk that slows down slows both
            for name, code in (("client", _CLIENT), ("ours", _OURS)):
                home = folder / "round"
                found[name].append(measured(code, home, address))
                if name == "ours":
                    found["again"].append(measured(code, home, address))
                shutil.rmtree(home)
                os.sync()
                print(name, found[name][-1], file=sys.stderr)
        assert server.stdin is not None
        server.stdin.close()
    report(found, (checkpoint / "model.safetensors").stat().st_size)


def report(found: dict[str, list[dict[str, Any]]], size: int) -> None:
    """Print the table: medians."""
    print(f"{size / 1e6:.0f} MB of weights, medians of {len(found['ours'])} rounds\n")
    print("| what | seconds | times the client | memory |\n| --- | --- | --- | --- |")
    for name, what in (*NAMES.items(), ("again", "the same again, with all of it fetched")):
        ratios = [one["seconds"] / base["seconds"] for one, base in zip(found[name], found["client"], strict=True)]
        seconds = statistics.median(one["seconds"] for one in found[name])
        peak = max(one["peak"] for one in found[name]) / 1e6
        print(f"| {what} | {seconds:.2f} | {statistics.median(ratios):.2f} | {peak:.0f} MB |")
    print(f"\n({line(facts())})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--folder", type=Path, default=None, help="where to work; on the disk to measure")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        measure(Path(name), options.rounds)


if __name__ == "__main__":
    main()
