"""Reads the settings of an archive's tokenizer that are not in tokenizer.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SETTINGS = "tokenization.json"
"""What transformers' AutoTokenizer does beside tokenizer.json, as the build recorded it:

- `follows`, `class`, `rewritten`: the release of transformers, the tokenizer's class in it, and the parts of
  tokenizer.json in which that class differs from the checkpoint's file
- `special_tokens`: by name, as chat templates get them
- `model_input_names`: the names of the tensors that it returns
- `truncation_side`, `split_special_tokens`: as in tokenizer_config.json
- `clean_up_tokenization_spaces`: whether decoded texts lose the spaces before punctuation
- `chat_template`: the template for conversations, or null
"""


def read(model_dir: Path) -> dict[str, Any]:
    """The settings of an unpacked archive. Raises FileNotFoundError if it has none."""
    file = model_dir / SETTINGS
    if not file.exists():
        raise FileNotFoundError(f"the archive has no {SETTINGS}: {file}")
    return dict(json.loads(file.read_text(encoding="utf-8")))
