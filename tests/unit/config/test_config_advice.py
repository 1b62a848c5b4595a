"""The advice in a config's problems: who follows it has one problem less."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from mar_pipeline.config.build_config import Overrides, load
from mar_pipeline.errors import InputError
from mar_pipeline.files.yaml import parse
from tests.unit.config import test_config_problems, test_inferentia_settings

CASES = {
    name: text
    for table in (test_config_problems.ONE_PROBLEM, test_inferentia_settings.ONE_PROBLEM)
    for name, (text, _) in table.items()
} | {
    "a-gpu-number-beside-the-cpu": test_config_problems.SEQ + "deviceType: cpu\ndeviceIds: [0]\n",
    "a-gpu-number-beside-inferentia": test_inferentia_settings.INF2 + "deviceIds: [0]\n",
    "float16-beside-the-cpu": test_config_problems.SEQ + "  dtype: float16\ndeviceType: cpu\n",
    "flash-attention-beside-the-cpu": test_config_problems.SEQ
    + "  attn_implementation: flash_attention_2\ndeviceType: cpu\n",
}
WHERE = re.compile(r"c\.yaml:\d+: (?P<key>[\w.]+): (?P<message>.*)")
SETTING = re.compile(r"(?<![\w.])(?P<key>(?:handler|hardware|archive|verify)(?:\.\w+)+): (?P<value>\w+)")


def problems(data: object) -> dict[str, str]:
    """The message at each key of a config."""
    Path("c.yaml").write_text(yaml.safe_dump(data), encoding="utf-8")
    try:
        load(Path("c.yaml"), Overrides())
    except InputError as error:
        lines = [WHERE.match(line) for line in str(error).splitlines()]
        return {line["key"]: line["message"] for line in lines if line}
    return {}


def changed(data: dict, key: str, value: object) -> None:
    *above, last = key.split(".")
    for part in above:
        data = data.setdefault(part, {})
    if value is None:
        data.pop(last, None)
    else:
        data[last] = value


def read(text: str) -> dict:
    """The data of a config's text; empty if it is not a mapping, or not YAML of the kind that configs have."""
    document = parse(text)
    return document.data if isinstance(document.data, dict) and not document.problems else {}


@pytest.mark.parametrize("name", [name for name, text in CASES.items() if read(text)])
def test_who_follows_the_advice_has_this_problem_no_more(name: str) -> None:
    for key, message in problems(read(CASES[name])).items():
        # What to do comes last.
        _, _, advice = message.rpartition("; ")
        settings = [(match["key"], yaml.safe_load(match["value"])) for match in SETTING.finditer(advice)]
        gone = [key] if advice.endswith(("leave it out", "leave this out", "instead")) else []
        gone += ["deviceType"] if "leave deviceType out" in advice else []
        if advice == message or "did you mean" in advice or not settings + gone:
            continue
        after = read(CASES[name])
        # It is often one or the other.
        for setting, value in settings if gone != [key] or "instead" in advice else ():
            changed(after, setting, value)
        for setting in gone:
            changed(after, setting, None)
        assert problems(after).get(key) != message, f"{message}: {settings}, {gone}"
