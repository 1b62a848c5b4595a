"""Traces whose linear layers are oneDNN's, against the same traces as they were made; and their mapped weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.compare import differences
from tests import tiny
from tests.handlers.archives import Served, lay_out

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


@pytest.mark.parametrize("damage", ["cut", "longer", "empty", "header"])
def test_a_damaged_file_is_told(tmp_path: Path, damage: str) -> None:
    from safetensors.torch import save_file

    file = tmp_path / "model.safetensors"
    save_file({"a": torch.ones(3), "b": torch.zeros(2, 2)}, file)
    data = file.read_bytes()
    file.write_bytes(
        {"cut": data[:-1], "longer": data + b"x", "empty": b"", "header": data[:8] + b"?" + data[9:]}[damage]
    )
    with pytest.raises(ValueError, match=r"model.safetensors is damaged"):
        mapped(file)
