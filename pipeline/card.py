"""What a model card says: the YAML at the head of a README.md (https://huggingface.co/docs/hub/model-cards)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml


def license_in(text: str) -> str | None:
    """The licence that a card's text names; None if it names none, or has no head that can be read."""
    if not text.startswith("---"):
        return None
    head = text[3:].partition("\n---")[0]
    try:
        told = yaml.safe_load(head)
    except yaml.YAMLError:
        return None
    return license_of(told) if isinstance(told, dict) else None


def license_of(head: Mapping[str, Any]) -> str | None:
    """The licence in a card's head: `license`, or where that is "other", `license_name`."""
    told = head.get("license")
    if isinstance(told, list):
        told = " AND ".join(str(one) for one in told) or None
    if told == "other" and head.get("license_name"):
        told = head["license_name"]
    return str(told).strip()[:200] or None if told else None
