"""How long the commands take that do no work: `mar --help`, `mar plan` of one config and of many, and a build that is
all cache hits.

    python benchmarks/command_times.py [--runs 11]

Prints a Markdown table, medians of whole processes with their ratio to a bare `python -c pass`, and the machine.
The config is built first if it is not cached.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TASK = ("--task", "seq_classification")
MANY = (100, 1000)


def configs(folder: Path, count: int) -> list[str]:
    """Configs of so many archives; their files."""
    text = (Path(__file__).parents[1] / "configs" / f"{TASK[1]}.yaml").read_text(encoding="utf-8")
    made = [folder / f"config{number}.yaml" for number in range(count)]
    for number, file in enumerate(made):
        file.write_text(f"{text}\narchive: {{name: archive-{number}}}\n", encoding="utf-8")
    return [str(file) for file in made]


def seconds(command: list[str]) -> float:
    """Wall-clock seconds of one run of a command that must succeed."""
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=11)
    runs = parser.parse_args().runs
    mar = [sys.executable, "-m", "mar_pipeline"]
    with tempfile.TemporaryDirectory() as folder:
        out = ("--out", str(Path(folder) / "build"))
        commands = {
            "python -c pass": [sys.executable, "-c", "pass"],
            "mar --help": [*mar, "--help"],
            "mar plan": [*mar, "plan", *TASK, *out],
            "mar build, all cached": [*mar, "build", *TASK, *out],
        }
        seconds(commands["mar build, all cached"])
        for count in MANY:
            commands[f"mar plan of {count:,} configs"] = [*mar, "plan", *configs(Path(folder), count), *out]
        times: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(runs):  # in turn, so that a machine that slows down slows all of them
            for name, command in commands.items():
                times[name].append(seconds(command))
    bare = statistics.median(times["python -c pass"])
    less, more = (statistics.median(times[f"mar plan of {count:,} configs"]) for count in MANY)
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, {runs} runs each, medians\n")
    print("| command | seconds | times a bare Python |\n| --- | --- | --- |")
    for name, found in times.items():
        print(f"| `{name}` | {statistics.median(found):.2f} | {statistics.median(found) / bare:.0f} |")
    one = statistics.median(times["mar plan"])
    up_to, beyond = (less - one) / (MANY[0] - 1), (more - less) / (MANY[1] - MANY[0])
    far = f"{1000 * beyond:.1f} ms from there to {MANY[1]:,}"
    print(f"\nA further config takes {1000 * up_to:.1f} ms up to {MANY[0]}, {far}")


if __name__ == "__main__":
    main()
