"""Every setting of a config.json with every kind of strange value: read, or refused with a sentence."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from mar_pipeline.builder import resolve
from mar_pipeline.errors import InputError
from mar_pipeline.workers.loading import model
from tests.builds.test_strange_settings import FAMILIES, changed, inputs, job, sentence
from tests.support import tiny

pytestmark = [pytest.mark.slow, pytest.mark.long]

STRANGE: list[Any] = [None, "", "128", "x", 0, -1, -(10**9), 0.5, 1e30, math.nan, math.inf, True, 2**31, 10**15]
STRANGE += [[], [1], ["x"], {}, {"a": 1}, {"a": {"b": [None]}}]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_strange_value_of_any_setting_is_read_or_refused_with_a_sentence(family: str, tmp_path: Path) -> None:
    task = FAMILIES[family]
    sound = tiny.save(tmp_path / "sound", family, task)
    config = json.loads((sound / "config.json").read_text())
    keys = [
        *config,
        "quantization_config",
        "_attn_implementation",
        "torch_dtype",
        "tie_word_embeddings",
        "rope_scaling",
    ]
    for key in keys:
        for value in STRANGE:
            folder = changed(sound, tmp_path / family, **{key: value})
            for ask, asked in ((resolve.max_length, inputs(folder)), (model, job(folder, task))):
                try:
                    ask(asked)
                except InputError as error:
                    sentence(error)
