"""Traces whose linear layers are oneDNN's, against the same traces as they were made; and their mapped weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from mar_pipeline.answers.compare import differences
from tests.support import tiny
from tests.support.unpacked import Served, lay_out

torch = pytest.importorskip("torch")

from handlers.runtimes import linear, traced_linear  # noqa: E402
from handlers.runtimes.weights import mapped  # noqa: E402

pytestmark = pytest.mark.slow

BODIES: dict[str, list[Any]] = {
    "token_classification": [
        {"text": text, "aggregation_strategy": "none"} for text in ("the old man", "a", "b " * 80)
    ],
    "text_generation": [{"prompt": text, "parameters": {"max_new_tokens": 9}} for text in ("The old", "a", "Once a")],
}
KINDS = [("bert", "token_classification"), ("distilbert", "token_classification"), ("albert", "token_classification")]
KINDS += [("gpt2", "text_generation"), ("llama", "text_generation"), ("opt", "text_generation")]


@pytest.mark.parametrize("way", ["oneDNN", "packed"])
@pytest.mark.parametrize(("family", "task"), KINDS, ids=lambda word: word)
def test_answers_are_those_of_the_trace_as_it_was_made(
    family: str, task: str, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = tiny.save(tmp_path / "checkpoint", family, task)
    folder = lay_out(tmp_path / "archive", checkpoint, task, "torchscript")
    counted: list[int] = []
    multiply = traced_linear._replace
    monkeypatch.setattr(traced_linear, "_replace", lambda *given: (counted.append(1), multiply(*given)))
    answers = {}
    for chosen in ("torch", way):
        times = {"torch": 2.0, "oneDNN": 2.0, "packed": 2.0} | {chosen: 1.0}
        monkeypatch.setattr(linear, "_times", lambda ways, _, times=times: {name: times[name] for name in ways})
        served = Served(folder, task)
        answers[chosen] = [served(*BODIES[task]), *(served(body)[0] for body in BODIES[task])]
    # Six products or more in each of the two layers, all of them replaced (Albert's layers are one, called twice).
    assert len(counted) >= 8
    assert differences("", answers["torch"], answers[way], 1e-5) == []


def test_a_lone_worker_packs_weights_and_several_share_them_unless_told_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import yaml

    checkpoint = tiny.save(tmp_path / "checkpoint", "bert", "seq_classification")
    folder = lay_out(tmp_path / "archive", checkpoint, "seq_classification", "torchscript")
    config = yaml.safe_load((folder / "model-config.yaml").read_text())
    asked = []

    def fastest(_: Any, __: Any, *, shared: bool) -> str:
        asked.append(shared)
        return "torch"

    monkeypatch.setattr(traced_linear, "fastest", fastest)
    for workers, chosen in ((1, None), (2, None), (1, False), (2, True)):
        handler = {**config["handler"], "pack_weights": chosen}
        (folder / "model-config.yaml").write_text(yaml.safe_dump({"handler": handler, "maxWorkers": workers}))
        Served(folder, "seq_classification")
    assert asked == [False, True, True, False]


def test_the_graphs_weights_are_mapped_and_not_in_the_graph_too(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    checkpoint = tiny.save(tmp_path / "checkpoint", "gpt2", "text_generation")
    folder = lay_out(tmp_path / "archive", checkpoint, "text_generation", "torchscript")
    found, expected = mapped(folder / "model.safetensors"), load_file(folder / "model.safetensors")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)
    maps = Path("/proc/self/maps").read_text()
    assert str(folder / "model.safetensors") in maps
    facts = json.loads((folder / "graph.json").read_text())
    tied = [name for name, owner in facts["weights"].items() if "lm_head" in name and "lm_head" not in owner]
    assert len(tied) == 1  # the head and the embeddings are one tensor, and stay one
    alone = torch.jit.load(str(folder / "model.pt"))
    assert not any(tensor.any() for tensor in alone.state_dict().values() if tensor.is_floating_point())


def save(file: Path, header: Any, data: bytes, pad: str = "") -> None:
    text = (header if isinstance(header, str) else json.dumps(header)) + pad
    file.write_bytes(len(text).to_bytes(8, "little") + text.encode() + data)


A, B = (
    {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]},
    {"dtype": "F32", "shape": [2, 2], "data_offsets": [12, 28]},
)


@pytest.mark.parametrize("damage", ["cut", "longer", "empty", "header"])
def test_a_damaged_file_is_told(tmp_path: Path, damage: str) -> None:
    file = tmp_path / "model.safetensors"
    save(file, {"a": A, "b": B}, bytes(28))
    data = file.read_bytes()
    assert mapped(file)["b"].shape == (2, 2)
    file.write_bytes(
        {"cut": data[:-1], "longer": data + b"x", "empty": b"", "header": data[:8] + b"?" + data[9:]}[damage]
    )
    with pytest.raises(ValueError, match=r"model.safetensors is damaged: .*; build the archive again"):
        mapped(file)


HEADERS: dict[str, Any] = {
    "a list": [1],
    "a number": 7,
    "null": None,
    "too deep": "[" * 100_000,
    "an entry is none": {"a": A, "b": 1},
    "no offsets": {"a": A, "b": {"dtype": "F32", "shape": [2, 2]}},
    "no shape": {"a": A, "b": {**B, "shape": "22"}},
    "below zero": {"a": A, "b": {**B, "shape": [-2, -2]}},
    "no dtype": {"a": A, "b": {**B, "dtype": ["F32"]}},
    "another size": {"a": A, "b": {**B, "shape": [2, 3]}},
    "one place": {"a": A, "b": {**B, "shape": [3], "data_offsets": [0, 12]}, "c": {**B, "data_offsets": [12, 28]}},
    "overlapping": {"a": A, "b": {**B, "shape": [5], "data_offsets": [8, 28]}},
    "a gap": {"a": A, "b": {**B, "shape": [3], "data_offsets": [16, 28]}},
    "outside": {"a": A, "b": {**B, "data_offsets": [28, 44]}},
}


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
def test_a_header_that_is_wrong_is_told(header: Any, tmp_path: Path) -> None:
    save(tmp_path / "model.safetensors", header, bytes(28))
    with pytest.raises(ValueError, match=r"model.safetensors is damaged: .*; build the archive again"):
        mapped(tmp_path / "model.safetensors")


def test_tensors_that_do_not_lie_as_their_type_must_are_read_too(tmp_path: Path) -> None:
    values = torch.arange(7, dtype=torch.float32)
    for pad in range(8):
        file = tmp_path / f"{pad}.safetensors"
        save(file, {"a": A, "b": B}, values.numpy().tobytes(), " " * pad)
        assert torch.equal(torch.cat([tensor.flatten() for tensor in mapped(file).values()]), values)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive of a trace."""
    folder = tmp_path_factory.mktemp("whole")
    checkpoint = tiny.save(folder / "checkpoint", "bert", "seq_classification")
    return lay_out(folder / "archive", checkpoint, "seq_classification", "torchscript")


HEAD = "model.classifier.weight"
RETOLD: dict[str, tuple[Any, str]] = {
    "no weights": (lambda facts: facts.pop("weights"), "graph.json is damaged: it has no weights"),
    "one left out": (lambda facts: facts["weights"].pop(HEAD), f"graph.json is damaged: {HEAD}"),
    "one too many": (lambda facts: facts["weights"].update(more=HEAD), "graph.json is damaged: more"),
    "another one's": (
        lambda facts: facts["weights"].update({HEAD: "model.classifier.bias"}),
        f"graph.json is damaged: .* {HEAD}",
    ),
}


@pytest.mark.parametrize(("change", "said"), RETOLD.values(), ids=RETOLD)
def test_a_graph_json_that_does_not_fit_the_graph_is_told(change: Any, said: str, whole: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(whole, tmp_path / "archive"))
    facts = json.loads((folder / "graph.json").read_text())
    change(facts)
    (folder / "graph.json").write_text(json.dumps(facts))
    with pytest.raises(ValueError, match=f"{said}.*; build the archive again"):
        Served(folder, "seq_classification")


@pytest.mark.parametrize("change", ["missing", "shape", "dtype", "more"])
def test_weights_that_do_not_fit_the_graph_are_told(change: str, whole: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = Path(shutil.copytree(whole, tmp_path / "archive"))
    weights = load_file(folder / "model.safetensors")
    head = weights.pop(HEAD)
    weights |= {
        "missing": {},
        "shape": {HEAD: head.t().contiguous()},
        "dtype": {HEAD: head.half()},
        "more": {HEAD: head, "more": head.clone()},
    }[change]
    save_file(weights, folder / "model.safetensors")
    said = "graph.json is damaged: .* more" if change == "more" else f"model.safetensors is damaged: .*{HEAD}"
    with pytest.raises(ValueError, match=f"{said}.*; build the archive again"):
        Served(folder, "seq_classification")


@pytest.mark.parametrize("name", ["graph.json", "model.pt", "model.safetensors"])
def test_a_missing_file_is_told(name: str, whole: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(whole, tmp_path / "archive"))
    (folder / name).unlink()
    with pytest.raises(ValueError, match=f"{name} is missing: build the archive again"):
        Served(folder, "seq_classification")


def test_a_graph_json_that_is_no_object_is_told(whole: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(whole, tmp_path / "archive"))
    for text in ("", "[1]", "null", "{"):
        (folder / "graph.json").write_text(text)
        with pytest.raises(ValueError, match=r"graph.json is damaged: .*; build the archive again"):
            Served(folder, "seq_classification")


class Odd(torch.nn.Module):
    """Products that share a weight or a storage, and such as oneDNN cannot take over."""

    def __init__(self) -> None:
        super().__init__()
        both = torch.rand(3, 8, 8) - 0.5
        self.both = torch.nn.Parameter(both[0])
        self.view = torch.nn.Parameter(both[0].flatten()[:32].view(4, 8))
        self.bias = torch.nn.Parameter(torch.rand(8))
        self.one = torch.nn.Parameter(torch.rand(1))
        self.empty = torch.nn.Parameter(torch.rand(0, 8))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        linear = torch.nn.functional.linear
        rows = x.flatten(0, -2)
        return (
            linear(x, self.both, self.bias),
            torch.addmm(self.bias, rows, self.both),
            linear(x, self.view),
            linear(x, self.empty),
            torch.addmm(self.one, rows, self.both),
            torch.addmm(rows, rows, self.both),
            linear(x, self.both, self.bias * 2),
        )


@pytest.mark.parametrize("way", ["oneDNN", "packed"])
def test_each_product_is_the_traces_own_at_any_number_of_rows(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traced_linear, "fastest", lambda *_, **__: way)
    replaced: list[int] = []
    replace = traced_linear._replace
    monkeypatch.setattr(traced_linear, "_replace", lambda *given: (replaced.append(1), replace(*given)))
    torch.manual_seed(0)
    with torch.no_grad():
        module = torch.jit.trace(Odd(), torch.rand(2, 3, 8))
        _, function = traced_linear.speed_up(module, linear.TEXTS, shared=False)
    assert len(replaced) == 3
    with torch.inference_mode():
        for shape in ((1, 1), (0, 5), (3, 5), (1, 16), (1, 17), (5, 7), (4, 33), (3, 101)):
            x = torch.rand(*shape, 8)
            torch.testing.assert_close(function(x), module(x), atol=1e-5, rtol=1e-5)


def test_products_are_of_few_numbers_of_rows() -> None:
    from torch.utils._python_dispatch import TorchDispatchMode

    class Noted(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if "_linear_pointwise" in str(func):
                noted.append(args[0].numel() // args[0].shape[-1])
            return func(*args, **(kwargs or {}))

    weight, noted = torch.rand(4, 8), []  # type: ignore[var-annotated]
    with torch.no_grad(), Noted():
        for rows in range(1, 513):
            assert linear.multiply(weight, None, torch.rand(rows, 8)).shape == (rows, 4)
    assert noted[:16] == list(range(1, 17))
    assert all(rows <= filled <= rows * 1.13 for rows, filled in enumerate(noted, 1))
    assert len(set(noted)) == 16 + 8 * 5
