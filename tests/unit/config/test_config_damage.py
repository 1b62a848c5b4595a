"""Configs damaged at random: each is an error with file and line, or still a config, and nothing else."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

from mar_pipeline.config.build_config import BuildConfig, Overrides, dump, load, packaged, packed, packed_handler
from mar_pipeline.errors import InputError
from mar_pipeline.tasks import TASKS

RICH = """\
minWorkers: 1
maxWorkers: 2
batchSize: 8
deviceType: gpu
deviceIds: [0, 1]
torchrun: {nproc-per-node: 2}
pt2:
  compile: {enable: true, mode: reduce-overhead}
handler:
  mode: sequence_classification
  model_name: distilbert/distilbert-base-uncased-finetuned-sst-2-english
  revision: 714eb0fa89d2f80546fda750413ed43d93601a13
  num_labels: 2
  labels: {0: bad, 1: good}
  max_length: 128
  hardware: gpu
  top_k: 2
  captum_explanation: true
archive:
  name: sentiment
  version: 1.10
  format: tgz
verify:
  tolerance: 1e-3
  samples:
    - text: "Fine: really"
    - {text: Awful., top_k: 1}
"""

VALUES = [
    "", "~", "0", "-1", "1e999", ".nan", "99999999999999999999", "true", "no", "text", "'8'", '"\\x00"', "[]", "{}",
    "[1, [2]]", "{a: {b: 1}}", "{1: 2}", "1.5", "2024-01-01", "0x10", "*gone", "&a [*a]", "!!python/name:os.system",
    "!x y", "'", '"', "[", "{", "]", "}", "|", ">", "%", "@", "`", "a: b", "- a", "? a", "é", "\u2028", "💥", "a" * 300,
    "\x07", "<<: 1", "starter:x", "../..", "~x/y", "C:\\x", "a//b", "https://x/y",
]  # fmt: skip
KEYS = ["batchsize", "handler", "mode", "model_nam", "<<", "''", "[a]", "{a: b}", "?", "0", "true", "archive.name", "é"]

LINE = re.compile(r"c\.yaml:(\d+): \S")
# YAML 1.1, 4.2: next line, line separator and paragraph separator end a line too.
BREAK = re.compile(rb"\r\n|\r|\n|\xc2\x85|\xe2\x80[\xa8\xa9]")


def damaged(text: str, chance: random.Random) -> bytes:
    """`text` after one to four random changes: of values, keys, lines, indentation, characters or bytes."""
    for _ in range(chance.choice([1, 1, 1, 2, 4])):
        rows = text.split("\n")
        at = chance.randrange(len(rows))
        kind = chance.randrange(9)
        if kind == 0:
            rows[at] = re.sub(r":.*", lambda _: ": " + chance.choice(VALUES), rows[at], count=1)
        elif kind == 1:
            rows[at] = re.sub(r"[\w-]+(?=:)", lambda _: chance.choice(KEYS), rows[at], count=1)
        elif kind == 2:
            rows.insert(at, rows[chance.randrange(len(rows))])
        elif kind == 3:
            del rows[at]
        elif kind == 4:
            rows[at] = chance.choice(["", " ", "   ", "\t"]) + rows[at].lstrip(chance.choice([" ", ""]))
        elif kind == 5 and rows[at]:
            place = chance.randrange(len(rows[at]))
            rows[at] = rows[at][:place] + chance.choice(":,[]{}#&*!|>'\"%@`-?~\t \x01é") + rows[at][place + 1 :]
        elif kind == 6:
            rows = [*rows[:at], rows[at][: chance.randrange(len(rows[at]) + 1)]]
        elif kind == 7:
            chance.shuffle(rows)
        else:
            rows.insert(at, f"{' ' * chance.choice([0, 2, 4])}{chance.choice(KEYS)}: {chance.choice(VALUES)}")
        text = "\n".join(rows)
    raw = text.encode("utf-8")
    if chance.random() < 0.1 and raw:
        place = chance.randrange(len(raw))
        raw = raw[:place] + bytes([chance.randrange(256)]) + raw[place + 1 :]
    return raw


def check(config: BuildConfig) -> None:
    """A config that loads is whole: it can be packed, and what is packed is a config again."""
    text = dump(packed(config, packed_handler(config, max_length=config.handler.max_length or 128)))
    Path("again.yaml").write_text(text, encoding="utf-8")
    assert load(Path("again.yaml")).frontend == config.frontend


@pytest.mark.parametrize("seed", range(20))
def test_a_damaged_config_is_an_error_with_file_and_line_or_still_a_config(seed):
    chance = random.Random(seed)
    texts = [RICH, *(packaged(task).read_text(encoding="utf-8") for task in TASKS)]
    bad = 0
    for _ in range(25):
        raw = damaged(chance.choice(texts), chance)
        path = Path("c.yaml")
        path.write_bytes(raw)
        try:
            config = load(path)
        except InputError as error:
            said = str(error)
        else:
            check(config)
            said = ""
        if said:
            bad += 1
            for row in said.splitlines():
                found = LINE.match(row)
                assert found, (row, raw)
                assert 1 <= int(found[1]) <= max(1, len(BREAK.split(raw))), (row, raw)
                assert "pydantic" not in row
                assert "Error" not in row
    assert bad >= 5


@pytest.mark.parametrize("seed", range(5))
def test_a_damaged_setting_of_the_command_line_names_itself_or_works(seed):
    chance = random.Random(seed)
    Path("c.yaml").write_text(RICH, encoding="utf-8")
    keys = ["handler.max_length", "batchSize", "handler", "verify.samples", "archive.name", "handler.labels.0", "a.b"]
    for _ in range(40):
        setting = f"{chance.choice(keys + KEYS)}={chance.choice(VALUES)}"
        try:
            check(load(Path("c.yaml"), Overrides(settings=(setting,))))
        except InputError as error:
            said = str(error).splitlines()
        else:
            said = []
        assert all(row.startswith("--set ") or LINE.match(row) for row in said), said
