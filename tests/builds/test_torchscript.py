"""Traces against the models that they were made of, at shapes that neither the tracer nor its own check saw."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mar_pipeline.errors import StageError
from mar_pipeline.tasks import TASKS
from tests.support import tiny, workers

pytestmark = pytest.mark.slow

ENCODERS = ["bert", "roberta", "distilbert", "electra", "albert", "mpnet", "modernbert"]
# Gemma's embeddings are scaled by a buffer of no dimension.
DECODERS = ["gpt2", "llama", "qwen2", "gpt_neox", "opt", "gemma"]


def job(folder: Path, family: str, task: str, **changes: Any) -> dict[str, Any]:
    checkpoint, out = tiny.save(folder / "checkpoint", family, task, **changes), folder / "out"
    out.mkdir()
    return {
        "checkpoint": str(checkpoint),
        "auto_class": TASKS[task].auto_class,
        "allow_untrained_head": False,
        "out": str(out),
        "task": task,
        "outputs": TASKS[task].outputs,
        "max_length": 64,
        "device": "cpu",
    }


def traced(job: dict[str, Any]) -> tuple[Any, dict[str, Any], Any]:
    """The graph as a server loads it, its facts, and the model as transformers loads it."""
    import torch
    import transformers

    from handlers.runtimes import Task
    from handlers.runtimes.torchscript import load
    from mar_pipeline.workers.trace import trace

    trace(job, lambda *_: None)
    loaded = load(Path(job["out"]), {}, torch.device("cpu"), 0, Task(job["task"], job["auto_class"]))
    model = getattr(transformers, job["auto_class"]).from_pretrained(job["checkpoint"]).eval()
    return loaded.graph, loaded.facts, model


@pytest.mark.parametrize("family", ENCODERS)
def test_an_encoders_graph_answers_as_the_model_at_any_shape(family: str, tmp_path: Path) -> None:
    import torch

    graph, facts, model = traced(job(tmp_path, family, "seq_classification"))
    for batch, length, pad in ((1, 3, 0), (5, 23, 9), (2, 63, 60)):
        inputs = {
            "input_ids": torch.randint(5, 90, (batch, length)),
            "attention_mask": torch.ones(batch, length, dtype=torch.long),
            "token_type_ids": torch.randint(0, 2, (batch, length)),
        }
        inputs["attention_mask"][-1, length - pad :] = 0 if batch > 1 else 1
        given = {name: inputs[name] for name in facts["inputs"]}
        with torch.inference_mode():
            (got,), wanted = graph(*given.values()), model(**given).logits
        torch.testing.assert_close(got, wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", DECODERS)
def test_a_decoders_graph_goes_on_as_the_model_with_its_cache(family: str, tmp_path: Path) -> None:
    import torch

    changes = {"num_key_value_heads": 2, "head_dim": 8} if family == "gemma" else {}
    graph, facts, model = traced(job(tmp_path, family, "text_generation", **changes))
    cache = facts["cache"]
    ids = torch.randint(1, 90, (3, 21))
    past = [torch.zeros(3, cache["heads"], 0, cache["head_dim"])] * (2 * cache["layers"])
    done = 0
    with torch.inference_mode():
        for new in (6, 1, 1, 13):  # a prompt, two tokens, and a prompt's other half
            mask = torch.ones(3, done + new, dtype=torch.long)
            logits, *past = graph(ids[:, done : done + new], mask, *past)
            done += new
            wanted = model(input_ids=ids[:, :done]).logits[:, -1:]
            torch.testing.assert_close(logits, wanted, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("types", [True, False])
def test_segments_are_an_input_only_if_the_tokenizer_gives_them(types: bool, tmp_path: Path) -> None:
    _, facts, _ = traced(job(tmp_path, "bert", "seq_classification", types=types))
    assert facts["inputs"] == ["input_ids", "attention_mask"] + ["token_type_ids"] * types


def test_a_path_that_depends_on_the_input_is_an_error_and_no_trace(tmp_path: Path, monkeypatch: Any) -> None:
    import transformers

    from mar_pipeline.workers.trace import trace

    kind = transformers.BertForSequenceClassification
    forward = kind.forward

    def branching(self: Any, input_ids: Any = None, attention_mask: Any = None, **others: Any) -> Any:
        out = forward(self, input_ids=input_ids, attention_mask=attention_mask, **others)
        out.logits = out.logits + (1.0 if input_ids.shape[1] > 30 else 0.0)
        return out

    monkeypatch.setattr(kind, "forward", branching)
    asked = job(tmp_path, "bert", "seq_classification")
    with pytest.raises(StageError, match=r"differs from the model by 1(\.0)? .* length 40"):
        trace(asked, lambda *_: None)
    assert not list(Path(asked["out"]).iterdir())


@pytest.mark.parametrize(("op", "file"), [("trace", "model.pt"), ("trace", "graph.json"), ("save", "config.json")])
def test_a_full_disk_is_a_failed_stage_and_no_crash(op: str, file: str, tmp_path: Path) -> None:
    asked = job(tmp_path, "bert", "seq_classification")
    (Path(asked["out"]) / file).symlink_to("/dev/full")
    with pytest.raises(StageError, match=f"The disk is full: {op} could not write to {asked['out']}") as caught:
        workers.work(op, asked, scratch=tmp_path)
    assert len(str(caught.value).splitlines()) == 3
