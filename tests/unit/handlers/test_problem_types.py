"""Scores of a classifier by its problem_type and number of labels, as transformers' pipeline computes them."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytestmark = pytest.mark.slow

KINDS: list[Any] = [None, "", "regression", "single_label_classification", "multi_label_classification", "multilabel"]


@pytest.mark.parametrize("labels", [1, 2, 3])
@pytest.mark.parametrize("kind", [*KINDS, "absent", 5])
def test_scores_are_those_of_the_pipeline(kind: Any, labels: int, tmp_path: Path) -> None:
    import torch
    from transformers import TextClassificationPipeline

    from mar_pipeline.handlers.seq_classification import SequenceClassification

    handler = SequenceClassification()
    handler.folder, handler.labels = tmp_path, [str(index) for index in range(labels)]
    (tmp_path / "config.json").write_text(json.dumps({} if kind == "absent" else {"problem_type": kind}))
    handler.prepare()
    logits = torch.tensor([[0.3, -1.7, 2.2][:labels]])
    names = {index: str(index) for index in range(labels)}
    config = SimpleNamespace(problem_type=None if kind == "absent" else kind, num_labels=labels, id2label=names)
    pipeline: Any = SimpleNamespace(model=SimpleNamespace(config=config), framework="pt")
    theirs = TextClassificationPipeline.postprocess(pipeline, {"logits": logits}, top_k=None, _legacy=False)
    ours = dict(zip(handler.labels, handler._scores(logits)[0].tolist(), strict=True))
    assert ours == pytest.approx({one["label"]: one["score"] for one in theirs})
