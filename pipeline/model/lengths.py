"""The lengths at which a model computes otherwise, by its config.json."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_WINDOWS = (
    "sliding_window", "attention_window", "attention_window_size", "attention_chunk_size", "local_attention",
    "window_size", "local_attn_chunk_length", "lsh_attn_chunk_length",
)  # fmt: skip
"""Settings with the tokens that a layer attends to, of all families."""


def _number(value: Any) -> float | None:
    """A positive number of at most twelve digits; None for anything else."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 10**12 else None


def _ropes(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The settings of rotary embeddings: one for all layers, or one for each type of layer. transformers 5 renamed
    them."""
    for name in ("rope_parameters", "rope_scaling"):
        rope = config.get(name)
        if isinstance(rope, dict):
            yield from (part for part in (rope, *rope.values()) if isinstance(part, dict) and _kind(part))


def _kind(rope: dict[str, Any]) -> str:
    return str(rope.get("rope_type") or rope.get("type") or "")


def stretched(config: dict[str, Any], positions: int) -> int:
    """The most tokens of a model for so many `max_position_embeddings`: scaling of rotary embeddings stretches them.
    For longrope and llama3, max_position_embeddings is the stretched number already."""
    lengths = [float(positions)]
    for rope in _ropes(config):
        kind, factor = _kind(rope), _number(rope.get("factor")) or 1.0
        if kind in ("linear", "dynamic"):
            lengths.append(positions * factor)
        elif kind == "yarn":
            lengths.append((_number(rope.get("original_max_position_embeddings")) or positions) * factor)
    return int(max(lengths))


def scaled(config: dict[str, Any]) -> tuple[str, int] | None:
    """The kind of rotary embeddings whose frequencies depend on the longest text, and the tokens up to which they do
    not; None if the model has no such embeddings."""
    for rope in _ropes(config):
        if (kind := _kind(rope)) in ("dynamic", "longrope", "su"):
            own = config.get("original_max_position_embeddings") or rope.get("original_max_position_embeddings")
            limit = _number(own) or _number(config.get("max_position_embeddings"))
            if limit:
                return kind, int(limit)
    return None


def switches(config: dict[str, Any]) -> list[int]:
    """Numbers of tokens beyond which the model computes otherwise, in order."""
    text = config.get("text_config")
    config = {**config, **text} if isinstance(text, dict) else config
    points = [rope[1]] if (rope := scaled(config)) else []
    for name in _WINDOWS:
        value = config.get(name)
        points += [int(one) for one in map(_number, value if isinstance(value, list) else [value]) if one]
    size, blocks = _number(config.get("block_size")), _number(config.get("num_random_blocks"))
    if config.get("attention_type") == "block_sparse" and size and blocks:
        points.append(int((5 + 2 * blocks) * size))  # BigBird attends to all tokens up to here
    return sorted(set(points))
