"""Linear layers by oneDNN, against torch's own."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from handlers.runtimes import linear  # noqa: E402

pytestmark = pytest.mark.slow


def model() -> Any:
    torch.manual_seed(3)
    layers = torch.nn.Sequential(
        torch.nn.Linear(96, 200), torch.nn.GELU(), torch.nn.Linear(200, 96, bias=False), torch.nn.LayerNorm(96)
    )
    return layers.eval()


def choose(monkeypatch: pytest.MonkeyPatch, times: dict[str, float]) -> None:
    monkeypatch.setattr(linear, "_times", lambda ways, _: {way: times[way] for way in ways})


@pytest.mark.parametrize("way", ["oneDNN", "packed"])
@pytest.mark.parametrize("shape", [(1, 96), (5, 96), (3, 7, 96), (2, 300, 96), (0, 96)], ids=str)
def test_products_are_torchs_own(monkeypatch: pytest.MonkeyPatch, way: str, shape: tuple[int, ...]) -> None:
    plain, fast = model(), model()
    choose(monkeypatch, {"torch": 2.0, "oneDNN": 1.5, "packed": 1.5, way: 1.0})
    assert linear.speed_up(fast, shared=False) == way
    assert type(fast[0]) is type(fast[2]) is linear.OneDNNLinear
    x = torch.randn(shape)
    with torch.inference_mode():
        torch.testing.assert_close(fast(x), plain(x), atol=2e-6, rtol=1e-5)


def test_gradients_are_still_there_for_explanations(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, fast = model(), model()
    choose(monkeypatch, {"torch": 2.0, "oneDNN": 1.5, "packed": 1.0})
    linear.speed_up(fast, shared=False)
    one, other = torch.ones(2, 96, requires_grad=True), torch.ones(2, 96, requires_grad=True)
    plain(one).sum().backward()
    fast(other).sum().backward()
    torch.testing.assert_close(one.grad, other.grad)


def test_shared_weights_are_not_copied_and_what_does_not_help_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    choose(monkeypatch, {"torch": 2.0, "oneDNN": 1.5, "packed": 1.0})
    shared = model()
    assert linear.speed_up(shared, shared=True) == "oneDNN"
    assert shared[0].packed.data_ptr() == shared[0].weight.data_ptr()
    choose(monkeypatch, {"torch": 2.0, "oneDNN": 1.95, "packed": 1.9})
    untouched = model()
    assert linear.speed_up(untouched, shared=False) == "torch"
    assert type(untouched[0]) is torch.nn.Linear


def test_other_types_than_float32_are_left_alone() -> None:
    assert linear.speed_up(model().to(torch.bfloat16), shared=False) == "torch"


def test_the_ways_are_really_timed() -> None:
    assert linear.speed_up(model(), shared=False) in ("torch", "oneDNN", "packed")
