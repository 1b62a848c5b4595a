"""Model cards: the YAML front matter of a README.md (https://huggingface.co/docs/hub/model-cards)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml


def license_in(text: str) -> str | None:
    """The licence in a card's text; None if it has none, or no readable front matter."""
    text = text.removeprefix("\ufeff")
    if not text.startswith("---"):
        return None
    head = text[3:].partition("\n---")[0]
    try:
        metadata = yaml.safe_load(head)
    except (yaml.YAMLError, ValueError, RecursionError):
        return None
    return license_of(metadata) if isinstance(metadata, dict) else None


def license_of(metadata: Mapping[str, Any]) -> str | None:
    """The licence in a card's metadata: `license`, or `license_name` if that is "other"; several are joined by commas,
    and cut after 200 characters. None if there is none."""
    value = metadata.get("license")
    if value == "other" and isinstance(metadata.get("license_name"), str):
        value = metadata["license_name"]
    names = [name.strip() for name in (value if isinstance(value, list) else [value]) if isinstance(name, str)]
    return ", ".join(name for name in names if name and name.isprintable())[:200] or None
