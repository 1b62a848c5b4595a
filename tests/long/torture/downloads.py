"""Downloads that break off: the process is killed, or the connection ends, at a byte by chance; then once more."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.support.proxy import Mischief, Pace
from tests.support.stand_ins.hub import Hub, running

from .report import Report, side_by_side

REPO = "org/sharded"
SHARDS = 3
BYTES = 4_000_000
"""Of a shard."""
RATE = 20_000_000
"""Bytes a second: slow enough that a kill meets what it is aimed at."""
MOST = 1.2
"""Bytes that may be sent in all, times the size."""

# The stage's own source, in a process of its own, to be killed.
_DOWNLOAD = f"""
import json, sys
from pathlib import Path
from mar_pipeline.model.selection import select
from mar_pipeline.sources.hub.repository import Hub
from mar_pipeline.sources.hub.client import offline
from mar_pipeline.cache.store import Store
source = Hub(Store(Path(sys.argv[1])), "{REPO}", None, no_network=offline(False))
source.may_fetch = True
files = select(source.sizes(), source.where, source.text).files
print("began", flush=True)
found = source.fetch(files, lambda *_: None)
source.keep_reference()
print(json.dumps({{got.entry.path: [got.entry.sha256, got.place] for got in found}}))
"""


def checkpoint(folder: Path, seed: int) -> Path:
    """A sharded checkpoint's files, with bytes by chance where the weights are."""
    chance = random.Random(seed)
    names = [f"model-{number}-of-{SHARDS}.safetensors" for number in range(1, SHARDS + 1)]
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).write_bytes(chance.randbytes(BYTES))
    index = {"weight_map": {f"weight.{number}": name for number, name in enumerate(names)}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    for name in ("config.json", "tokenizer.json"):
        (folder / name).write_text(json.dumps({"of": f"no use here, {name}"}))
    return folder


class Trial:
    """One download into an empty cache, with a server of its own."""

    def __init__(self, folder: Path, hub: Hub) -> None:
        self.folder, self.hub = folder, hub
        self.env = {**os.environ, "HF_HOME": str(folder / "hf"), "HF_ENDPOINT": hub.address, "HF_HUB_OFFLINE": "0"}

    def start(self) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", _DOWNLOAD, str(self.folder / "cache")]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, env=self.env, stdout=pipe, stderr=pipe, text=True)

    def finish(self) -> tuple[dict[str, Any], str]:
        """Run to the end; what came, and what went wrong."""
        process = self.start()
        out, err = process.communicate(timeout=120)
        return (json.loads(out.splitlines()[-1]) if process.returncode == 0 else {}), err

    def kill_at(self, count: int) -> bool:
        """Run until so many bytes were sent, then kill -9; whether that met it."""
        with self.start() as process:
            while self.hub.sent < count and process.poll() is None:
                time.sleep(0.0005)
            met = process.poll() is None
            process.kill()
        return met


def run(folder: Path, *, times: int, lanes: int, seed: int) -> Report:
    """Break so many downloads off, each once and every other one by a kill, and do them again."""
    report = Report("downloads")
    source = checkpoint(folder / "source", seed)
    wanted = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in source.iterdir()}
    size = sum(file.stat().st_size for file in source.iterdir())
    most: list[float] = []

    def trial(_lane: int, number: int) -> None:
        chance = random.Random(seed * 1000 + number)
        how = "kill" if number % 2 else "drop"
        with running() as hub, tempfile.TemporaryDirectory(dir=folder) as name:
            hub.add(REPO, source)
            one = Trial(Path(name), hub)
            if how == "kill":
                hub.pace = Pace(RATE, hub.stopped)
                met = one.kill_at(chance.randrange(size))
                hub.pace = None
            else:
                at, reset = chance.randrange(BYTES), chance.random() < 0.5
                shard = f"model-{chance.randint(1, SHARDS)}-of"
                hub.mischief.append(Mischief("drop", shard, host="cdn", at=at, reset=reset))
                met = True
            found, err = one.finish()
            report.count(f"{how}s" if met else "came too late")
            told = f"{how} {number}: {err[-500:]}"
            if report.expect(found, f"{told}: it did not go on"):
                right = {path: sha for path, (sha, _) in found.items()} == wanted
                report.expect(right, f"{told}: other digests")
                same = all(hashlib.sha256(Path(p).read_bytes()).hexdigest() == sha for sha, p in found.values())
                report.expect(same, f"{told}: other bytes in the cache")
            left = [path.name for path in one.folder.rglob("*.incomplete")]
            report.expect(not left, f"{told}: left {left}")
            report.expect(hub.sent <= MOST * size, f"{told}: {hub.sent / size:.2f} times the size was sent")
            most.append(hub.sent / size)

    side_by_side(trial, range(times), lanes)
    report.count("bytes sent at most, in thousandths of the size", round(1000 * max(most)))
    report.count("bytes sent, in thousandths of the size, mean", round(1000 * sum(most) / len(most)))
    return report
