"""The lengths at which a model computes otherwise, and the most tokens that scaled rotary embeddings allow."""

from __future__ import annotations

from typing import Any

import pytest

from mar_pipeline.model import checkpoint, lengths


@pytest.mark.parametrize(
    ("config", "longest"),
    [
        # As Qwen2.5's card says: 32,768 positions, and YaRN's factor of 4 for 131,072 tokens.
        (
            {
                "max_position_embeddings": 32768,
                "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768},
            },
            131072,
        ),
        ({"max_position_embeddings": 4096, "rope_scaling": {"type": "linear", "factor": 4.0}}, 16384),
        ({"max_position_embeddings": 2048, "rope_parameters": {"rope_type": "dynamic", "factor": 2}}, 4096),
        (
            {
                "max_position_embeddings": 131072,
                "rope_parameters": {
                    "rope_type": "longrope",
                    "factor": 32.0,
                    "original_max_position_embeddings": 4096,
                },
            },
            131072,
        ),
        (
            {
                "max_position_embeddings": 131072,
                "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 8192},
            },
            131072,
        ),
        (
            {
                "max_position_embeddings": 1000,
                "rope_parameters": {
                    "full_attention": {"rope_type": "linear", "factor": 8.0},
                    "sliding_attention": {"rope_type": "default"},
                },
            },
            8000,
        ),
        ({"max_position_embeddings": 2048, "rope_scaling": {"type": "dynamic", "factor": "two"}}, 2048),
        ({"max_position_embeddings": 2048, "rope_parameters": {"rope_type": "default"}}, 2048),
    ],
)
def test_scaling_of_rotary_embeddings_stretches_a_model(config: dict[str, Any], longest: int) -> None:
    assert checkpoint.positions({"model_type": "llama", **config}, {}) == longest


@pytest.mark.parametrize(
    ("config", "points"),
    [
        ({"rope_parameters": {"rope_type": "longrope", "original_max_position_embeddings": 4096}}, [4096]),
        ({"original_max_position_embeddings": 99, "rope_scaling": {"type": "su"}, "sliding_window": 17}, [17, 99]),
        ({"max_position_embeddings": 64, "rope_scaling": {"type": "dynamic", "factor": 2.0}}, [64]),
        ({"attention_type": "block_sparse", "block_size": 64, "num_random_blocks": 3}, [704]),
        ({"attention_type": "original_full", "block_size": 64, "num_random_blocks": 3}, []),
        ({"attention_window": [8, 16]}, [8, 16]),
        ({"text_config": {"sliding_window": 512}}, [512]),
        ({"sliding_window": None, "window_size": -1, "local_attention": "many"}, []),
    ],
)
def test_the_lengths_at_which_a_model_changes_are_known_by_its_config(
    config: dict[str, Any], points: list[int]
) -> None:
    assert lengths.switches(config) == points


@pytest.mark.parametrize("factor", [float("inf"), float("nan"), 1e308, 10**40, -2.0, "2", True])
def test_a_factor_that_no_model_has_does_not_count(factor: Any) -> None:
    rope = {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": 64}
    assert lengths.stretched({"rope_parameters": rope}, 4096) == 4096
