"""The original checkpoint, as the worker loads it: a head that it does not hold is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mar_pipeline.errors import InputError
from mar_pipeline.workers.loading import model
from tests.support import tiny

pytestmark = pytest.mark.slow


def job(folder: Path, **changes: Any) -> dict[str, Any]:
    return {
        "checkpoint": str(folder),
        "auto_class": "AutoModelForSequenceClassification",
        "allow_untrained_head": False,
        "num_labels": None,
        "labels": None,
        **changes,
    }


@pytest.fixture(scope="module")
def headless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DistilBERT that was trained as a language model, and has no head for labels."""
    return tiny.save(tmp_path_factory.mktemp("headless") / "distilbert", "distilbert", "question_answering")


def test_missing_weights_are_named(headless: Path) -> None:
    with pytest.raises(InputError) as caught:
        model(job(headless))
    said = str(caught.value)
    for name in ("classifier.bias", "classifier.weight", "pre_classifier.bias", "pre_classifier.weight"):
        assert name in said
    assert "allow_untrained_head: true" in said
    assert 1 <= len(said.splitlines()) <= 3


def test_an_untrained_head_is_the_same_each_time_it_is_allowed(headless: Path) -> None:
    import torch

    one, other = (model(job(headless, allow_untrained_head=True, num_labels=3)) for _ in range(2))
    assert one.classifier.weight.shape == (3, 32)
    assert torch.equal(one.classifier.weight, other.classifier.weight)


def test_a_head_of_another_size_is_refused(bert: Path) -> None:
    with pytest.raises(InputError, match=r"num_labels|classifier"):
        model(job(bert, num_labels=5))


def test_shards_are_loaded_as_one_file_is(bert: Path, tmp_path: Path) -> None:
    import shutil

    import torch

    whole = model(job(bert))
    whole.save_pretrained(tmp_path, max_shard_size="20KB")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(bert / name, tmp_path)
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    pairs = zip(whole.state_dict().items(), model(job(tmp_path)).state_dict().items(), strict=True)
    assert all(name == other and torch.equal(one, two) for (name, one), (other, two) in pairs)


def test_a_class_that_the_architecture_has_not_is_refused(bert: Path, tmp_path: Path) -> None:
    import json
    import shutil

    # It generates texts, and has no head that classifies them.
    folder = tmp_path / "codegen"
    shutil.copytree(bert, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "codegen"}))
    with pytest.raises(InputError, match="cannot load this checkpoint as AutoModelForSequenceClassification"):
        model(job(folder))
