"""Model cards: the YAML front matter of a README.md (https://huggingface.co/docs/hub/model-cards)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

HEAD = 1 << 16
"""The bytes of a model card that are read: its front matter is at most some kilobytes."""

_KEYS = ("license", "license_name")


def license_in(text: str) -> str | None:
    """The licence in a card's text; None if it has none, or no readable front matter."""
    text = text[:HEAD].removeprefix("\ufeff")
    if not text.startswith("---"):
        return None
    head = text[3:].partition("\n---")[0]
    try:
        # Only composed: constructing writes out merge keys, of which a few lines can stand for billions of values.
        node = yaml.compose(head, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, ValueError, RecursionError):
        return None
    if not isinstance(node, yaml.MappingNode):
        return None
    return license_of({str(key.value): _plain(value) for key, value in node.value if key.value in _KEYS})


def _plain(node: yaml.Node) -> Any:
    """A text, or a list of texts; null is None."""
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item) for item in node.value if isinstance(item, yaml.ScalarNode)]
    return node.value if node.tag == "tag:yaml.org,2002:str" else None


def license_of(metadata: Mapping[str, Any]) -> str | None:
    """The licence in a card's metadata: `license`, or `license_name` if that is "other"; several are joined by commas,
    and cut after 200 characters. None if there is none."""
    value = metadata.get("license")
    if value == "other" and isinstance(metadata.get("license_name"), str):
        value = metadata["license_name"]
    names = [name.strip() for name in (value if isinstance(value, list) else [value]) if isinstance(name, str)]
    return ", ".join(name for name in names if name and name.isprintable())[:200] or None
