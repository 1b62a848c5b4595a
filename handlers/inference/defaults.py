"""The generation settings that a checkpoint comes with, by transformers' precedence."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

_RANGES = {
    "temperature": (0.0, math.inf),
    "top_p": (0.0, 1.0),
    "top_k": (0, math.inf),
    "repetition_penalty": (0.0, math.inf),
    "max_new_tokens": (0, math.inf),
    "max_length": (0, math.inf),
}
"""The settings that are used -> what they must be above, and at most. Whole numbers have whole limits."""


def read(folder: Path, model: Any = None) -> tuple[dict[str, Any], frozenset[int]]:
    """The settings of an unpacked archive, and its end-of-text tokens.

    As in transformers, generation_config.json counts alone if there is one, without those of config.json; else those of
    config.json, then of the text model in it. transformers' `model` has end-of-text tokens of its architecture even if
    neither file has any.
    """
    file = folder / "generation_config.json"
    if file.exists():
        own = _json(file)
    else:
        config = _json(folder / "config.json")
        parts = [config[name] for name in ("decoder", "generator", "text_config") if isinstance(config.get(name), dict)]
        own = {**(parts[0] if parts else {}), **{name: value for name, value in config.items() if value is not None}}
    ends = getattr(getattr(model, "generation_config", None), "eos_token_id", own.get("eos_token_id"))
    ends = [] if ends is None else ends if isinstance(ends, list) else [ends]
    usable = {name: own[name] for name, limits in _RANGES.items() if _is_within(own.get(name), *limits)}
    return usable, frozenset(int(end) for end in ends)


def _json(file: Path) -> dict[str, Any]:
    settings: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return settings


def _is_within(value: Any, low: float, high: float) -> bool:
    kinds = (int,) if isinstance(low, int) else (int, float)
    right = isinstance(value, kinds) and not isinstance(value, bool)
    return right and math.isfinite(value) and low < value <= high
