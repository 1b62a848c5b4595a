"""Linear layers by oneDNN, against torch's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from handlers.runtimes import linear  # noqa: E402
from tests.support import tiny  # noqa: E402
from tests.support.unpacked import Served, lay_out  # noqa: E402

pytestmark = pytest.mark.slow


def model() -> Any:
    torch.manual_seed(3)
    from transformers.pytorch_utils import Conv1D

    layers = torch.nn.Sequential(
        torch.nn.Linear(96, 200), torch.nn.GELU(), torch.nn.Linear(200, 96, bias=False), Conv1D(96, 96)
    )
    return layers.eval()


def multiplied(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """The weights that oneDNN multiplies with, as it does."""
    seen: list[torch.Tensor] = []
    multiply = linear.multiply
    monkeypatch.setattr(linear, "multiply", lambda w, b, x: (seen.append(w), multiply(w, b, x))[1])
    return seen


def choose(monkeypatch: pytest.MonkeyPatch, times: dict[str, float]) -> None:
    monkeypatch.setattr(linear, "_times", lambda ways, _: {way: times[way] for way in ways})


@pytest.mark.parametrize("way", ["oneDNN", "packed"])
@pytest.mark.parametrize("shape", [(1, 96), (5, 96), (3, 7, 96), (2, 300, 96), (0, 96)], ids=str)
def test_products_are_torchs_own(monkeypatch: pytest.MonkeyPatch, way: str, shape: tuple[int, ...]) -> None:
    plain, fast = model(), model()
    choose(monkeypatch, {"torch": 2.0, "oneDNN": 1.5, "packed": 1.5, way: 1.0})
    assert linear.speed_up(fast, (1, 9), shared=False) == way
    used, x = multiplied(monkeypatch), torch.randn(shape)
    with torch.inference_mode():
        torch.testing.assert_close(fast(x), plain(x), atol=2e-6, rtol=1e-5)
    assert len(used) == 3


def test_gradients_are_still_there_for_explanations(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, fast = model(), model()
    choose(monkeypatch, {"torch": 2.0, "oneDNN": 1.5, "packed": 1.0})
    linear.speed_up(fast, (1, 9), shared=False)
    one, other = torch.ones(2, 96, requires_grad=True), torch.ones(2, 96, requires_grad=True)
    plain(one).sum().backward()
    fast(other).sum().backward()
    torch.testing.assert_close(one.grad, other.grad)


def test_shared_weights_are_not_copied_and_what_does_not_help_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    choose(monkeypatch, {"torch": 2.0, "oneDNN": 1.5, "packed": 1.0})
    shared, x = model(), torch.randn(2, 96)
    assert linear.speed_up(shared, (1, 9), shared=True) == "oneDNN"
    used = multiplied(monkeypatch)
    with torch.inference_mode():
        shared(x)
    assert [one.data_ptr() for one in used] == [shared[index].weight.data_ptr() for index in (0, 2, 3)]
    choose(monkeypatch, {"torch": 2.0, "oneDNN": 1.95, "packed": 1.9})
    untouched = model()
    assert linear.speed_up(untouched, (1, 9), shared=False) == "torch"
    used.clear()
    with torch.inference_mode():
        untouched(x)
    assert used == []


def test_other_types_than_float32_are_left_alone() -> None:
    assert linear.speed_up(model().to(torch.bfloat16), (1, 9), shared=False) == "torch"


@pytest.mark.parametrize("mode", ["pretrained", "torchscript"])
def test_weights_stay_in_the_mapping_of_their_file(mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    choose(monkeypatch, {"torch": 1.0, "oneDNN": 1.0, "packed": 1.0})
    checkpoint = tiny.save(tmp_path / "checkpoint", "bert", "seq_classification")
    folder = lay_out(tmp_path / "archive", checkpoint, "seq_classification", mode)
    served = Served(folder, "seq_classification")
    loaded = served.handler.model.model if mode == "pretrained" else served.handler.model.graph
    lines = Path("/proc/self/maps").read_text().splitlines()
    spans = [line.split()[0].split("-") for line in lines if str(folder / "model.safetensors") in line]
    weights = [tensor for tensor in loaded.state_dict().values() if tensor.is_floating_point()]
    assert len(weights) > 20
    for weight in weights:
        assert any(int(start, 16) <= weight.data_ptr() < int(end, 16) for start, end in spans)


def test_the_ways_are_really_timed() -> None:
    assert linear.speed_up(model(), (1, 9), shared=False) in ("torch", "oneDNN", "packed")


class Clock:
    """Processor time that passes as its ways run, each for its seconds; it stands still while `still` says so of the
    number of the call."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, still: Callable[[int], bool]) -> None:
        self.now, self.calls, self.still = 5.0, 0, still
        monkeypatch.setattr(linear.time, "thread_time", lambda: self.now)

    def way(self, seconds: float) -> Callable[[torch.Tensor], None]:
        def run(_: torch.Tensor) -> None:
            self.calls += 1
            self.now += 0.0 if self.still(self.calls) else seconds

        return run


@pytest.mark.parametrize("every", [2, 3, 5])
def test_a_round_in_which_the_clock_stood_still_is_left_out(monkeypatch: pytest.MonkeyPatch, every: int) -> None:
    clock = Clock(monkeypatch, lambda call: (call // 3) % every == 1)
    ways = {"torch": clock.way(2.0), "oneDNN": clock.way(1.0), "packed": clock.way(3.0)}
    assert linear._times(ways, torch.ones(1, 1)) == {"torch": 2.0, "oneDNN": 1.0, "packed": 3.0}


def test_a_clock_that_stands_still_leaves_the_choice_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, lambda _: True)
    assert linear._times({"torch": clock.way(1.0)}, torch.ones(1, 1)) == {"torch": float("inf")}
    assert linear.speed_up(model(), (1, 9), shared=False) == "torch"


@pytest.mark.parametrize("unknown", ["torch", "oneDNN", "packed"])
def test_a_way_that_was_never_timed_leaves_the_choice_to_torch(monkeypatch: pytest.MonkeyPatch, unknown: str) -> None:
    choose(monkeypatch, {"torch": 2.0, "oneDNN": 1.0, "packed": 1.0, unknown: float("inf")})
    assert linear.speed_up(model(), (1, 9), shared=False) == "torch"
