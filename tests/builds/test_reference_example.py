"""The configurations of the reference example build from their own YAML as they are, with the models that they name on
the Hub."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.mar import Mar
from tests.support.reference_example import FORMS, SECTIONS, config, model
from tests.support.stand_ins.hub import Hub, running

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with running() as found:
        yield found


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {mode: model(root / mode, mode) for mode in SECTIONS}


@pytest.fixture(scope="module")
def online(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Mar:
    mar = Mar(tmp_path_factory.mktemp("example"))
    mar.env |= {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": hub.address}
    return mar


def build(mar: Mar, name: str, text: str) -> dict[str, Any]:
    path = mar.folder / f"{name}.yaml"
    path.write_text(text)
    (archive,) = mar.build(path)
    assert path.read_text() == text
    return archive


# A compiler takes a minute or more.
KINDS = [
    pytest.param(mode, form, marks=pytest.mark.long if form == "torch.compile" else ())
    for mode in SECTIONS
    for form in FORMS
]


@pytest.mark.parametrize(("mode", "form"), KINDS)
def test_a_configuration_of_the_example_builds_as_it_is(
    hub: Hub, online: Mar, models: dict[str, Path], mode: str, form: str
) -> None:
    name, labels, _ = SECTIONS[mode]
    commit = hub.add(name, models[mode])
    archive = build(online, f"{mode}-{form}", config(mode, *FORMS[form]))
    assert archive["verified"] is True
    assert archive["source"]["commit"] == commit
    told = json.loads(online("inspect", archive["path"], "--json").stdout)
    packed = told["settings"]
    assert (packed["minWorkers"], packed["maxWorkers"]) == (1, 1)
    assert packed["handler"]["mode"] == mode
    assert packed["handler"]["max_length"] == 150
    assert packed["handler"]["save_mode"] == FORMS[form][1].get("save_mode", "pretrained")
    assert packed.get("pt2") == FORMS[form][0].get("pt2")
    assert len(told["labels"] or []) == labels


def test_the_examples_model_over_several_gpus_builds_as_it_is(hub: Hub, online: Mar, models: dict[str, Path]) -> None:
    hub.add("gpt2", models["text_generation"])
    archive = build(online, "parallel", config("text_generation", {}, {"model_parallel": True}))
    assert archive["verified"] is True


@pytest.mark.parametrize("mode", ["sequence_classification", "token_classification"])
def test_the_models_that_the_example_names_are_refused_where_they_have_no_trained_head(
    hub: Hub, online: Mar, tmp_path: Path, mode: str
) -> None:
    import torch
    import transformers

    folder = model(tmp_path / "bert", mode)
    encoder = transformers.AutoModel.from_pretrained(folder)
    torch.manual_seed(0)
    transformers.BertForMaskedLM(encoder.config).save_pretrained(folder)
    hub.add("bert-base-uncased", folder)
    path = tmp_path / "config.yaml"
    path.write_text(config(mode, {}, {}))
    done = online("build", path, "--out", tmp_path / "out")
    assert done.returncode == 2, done.stderr
    error = done.stderr[done.stderr.index("error:") :].strip()
    assert "classifier.bias, classifier.weight" in error
    assert "handler.allow_untrained_head: true" in error
    assert len(error.splitlines()) <= 3
    assert not (tmp_path / "out").exists()
