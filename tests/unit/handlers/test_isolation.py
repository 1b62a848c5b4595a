"""A model whose answers depend on other texts is found, and put back into its first state."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from handlers.runtimes.isolation import State, depends, switches


class Own(torch.nn.Module):
    """Scores a text by its tokens; `odd` changes the scores [rows]."""

    dtype = torch.float32

    def __init__(self, odd: Callable[[Any, torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.odd, self.count, self.seen = odd, 0, list[int]()
        self.words = torch.nn.Embedding(50, 1)
        self.inner = torch.nn.Identity()
        self.register_buffer("longest", torch.zeros(()))

    def get_input_embeddings(self) -> Any:
        return self.words

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.odd(self, (self.words(ids)[..., 0] * mask).sum(1), mask)


def batched(model: Own) -> Callable[[list[list[int]]], Any]:
    def ask(texts: list[list[int]]) -> list[Any]:
        longest = max(map(len, texts))
        ids = torch.tensor([text + [0] * (longest - len(text)) for text in texts])
        mask = torch.tensor([[1.0] * len(text) + [0.0] * (longest - len(text)) for text in texts])
        return [[score[None]] for score in model(ids, mask)]

    return ask


def counted(model: Any, scores: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
    model.count += 1
    model.seen.append(model.count)
    return scores + model.count


def grown(model: Any, scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    model.longest.clamp_(min=mask.shape[1])
    return scores * model.longest


def switched(model: Any, scores: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
    if isinstance(model.inner, torch.nn.Identity):
        model.inner, model.more = torch.nn.ReLU(), 1
        return scores
    return scores + 1


def failing(_: Any, scores: torch.Tensor, __: torch.Tensor) -> torch.Tensor:
    if len(scores) > 1:
        raise RuntimeError
    return scores


KINDS = {
    "padding": lambda _, scores, mask: scores + mask.shape[1],
    "neighbours": lambda _, scores, __: scores - scores.mean(),
    "counted": counted,
    "grown": grown,
    "switched": switched,
    "failing": failing,
}


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_a_model_that_depends_on_other_texts_is_found(kind: str) -> None:
    model = Own(KINDS[kind])
    assert depends(model, batched(model), 0, 64)


@torch.no_grad()
def test_a_model_that_does_not_depend_on_other_texts_is_left_alone() -> None:
    for odd in (lambda _, scores, __: scores, lambda _, scores, __: scores * float("nan")):
        model = Own(odd)
        assert not depends(model, batched(model), 0, 64)
        assert not depends(model, batched(model), 0, 1)


@pytest.mark.parametrize("kind", ["counted", "grown", "switched"])
@torch.no_grad()
def test_a_restored_model_answers_as_if_nothing_had_been_asked(kind: str) -> None:
    model = Own(KINDS[kind])
    ask, state = batched(model), State(model)
    first = [ask([[1, 2]])]
    for text in ([1, 2, 3], [4], [1, 2]):
        state.restore()
        first.append(ask([text]))
    assert first[0] == first[-1]
    state.restore()
    assert (model.count, model.seen, float(model.longest)) == (0, [], 0.0)
    assert isinstance(model.inner, torch.nn.Identity)
    assert not hasattr(model, "more")


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"attention_type": "block_sparse"}, True),
        ({"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}, "max_position_embeddings": 511}, True),
        ({"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}, "max_position_embeddings": 512}, False),
        ({"rope_scaling": {"type": "longrope", "original_max_position_embeddings": 99}}, True),
        (
            {
                "rope_scaling": {"type": "su"},
                "original_max_position_embeddings": 4096,
                "max_position_embeddings": 131072,
            },
            False,
        ),
        ({"rope_parameters": {"full": {"rope_type": "longrope", "original_max_position_embeddings": 9}}}, True),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 4.0}, "max_position_embeddings": 9}, False),
        ({}, False),
    ],
)
def test_a_config_says_where_a_model_changes_with_the_length(config: dict[str, Any], expected: bool) -> None:
    assert switches(SimpleNamespace(**config), 512) is expected
