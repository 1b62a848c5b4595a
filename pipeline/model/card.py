"""What a model card says: the YAML at the head of a README.md (https://huggingface.co/docs/hub/model-cards)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml


def license_in(text: str) -> str | None:
    """The licence that a card's text names; None if it names none, or has no head that can be read."""
    text = text.removeprefix("\ufeff")
    if not text.startswith("---"):
        return None
    head = text[3:].partition("\n---")[0]
    try:
        told = yaml.safe_load(head)
    except (yaml.YAMLError, ValueError, RecursionError):
        return None
    return license_of(told) if isinstance(told, dict) else None


def license_of(head: Mapping[str, Any]) -> str | None:
    """The licence in a card's head: `license`, or where that is "other", `license_name`; several with commas."""
    told = head.get("license")
    if told == "other" and isinstance(head.get("license_name"), str):
        told = head["license_name"]
    names = [name.strip() for name in (told if isinstance(told, list) else [told]) if isinstance(name, str)]
    found = ", ".join(name for name in names if name and name.isprintable())[:200]
    return found or None
