"""What transformers itself answers, by its own pipelines where it has one for the task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.support import tiny

from .recipes import Recipe


def answers(recipe: Recipe, folder: Path, max_length: int) -> tuple[list[Any], str]:
    """An answer to each request, in a form of its own that `trial` compares, and the model's precision; None for a
    request that transformers rejects. Raises whatever transformers raises when it loads the checkpoint."""
    import torch
    import transformers as t

    tokenizer = t.AutoTokenizer.from_pretrained(folder)
    model = getattr(t, tiny.AUTO[recipe.task]).from_pretrained(folder).eval()
    ask = {
        "seq_classification": _classify,
        "token_classification": _tag,
        "question_answering": _find,
        "text_generation": _generate,
    }[recipe.task]
    results = []
    with torch.inference_mode():
        for request in recipe.requests:
            try:
                results.append(ask(model, tokenizer, request, max_length))
            except (IndexError, ValueError, RuntimeError):
                results.append(None)
    return results, str(model.dtype).rpartition(".")[2]


def _classify(model: Any, tokenizer: Any, request: dict[str, Any], max_length: int) -> dict[str, float]:
    from transformers import TextClassificationPipeline

    ask = TextClassificationPipeline(model=model, tokenizer=tokenizer, device="cpu", top_k=None)
    cut = {"truncation": True, "max_length": max_length}
    result = ask(request, **cut)
    return {one["label"]: float(one["score"]) for one in result}


def _tag(model: Any, tokenizer: Any, request: dict[str, Any], max_length: int) -> list[Any] | None:
    from transformers import TokenClassificationPipeline

    if len(tokenizer(request["text"])["input_ids"]) > max_length:
        return None  # the pipeline cuts it
    strategy = request.get("aggregation_strategy", "simple")
    ask = TokenClassificationPipeline(model=model, tokenizer=tokenizer, device="cpu", aggregation_strategy=strategy)
    return [
        (one.get("entity_group") or one["entity"], float(one["score"]), one["start"], one["end"])
        for one in ask(request["text"])
    ]


def _find(model: Any, tokenizer: Any, request: dict[str, Any], max_length: int) -> Any:
    """The best product of the start's and the end's probability, over spans of at most 30 tokens of the context."""
    import torch

    encoded = tokenizer(request["question"], request["context"], return_tensors="pt")
    if encoded["input_ids"].shape[1] > max_length:
        return None
    out = model(**encoded)
    start, end = (out.start_logits, out.end_logits) if hasattr(out, "start_logits") else out[:2]
    inside = torch.tensor([part == 1 for part in encoded.sequence_ids(0)])
    ids = encoded["input_ids"][0].tolist()
    if tokenizer.cls_token_id in ids:
        inside[ids.index(tokenizer.cls_token_id)] = True
    first, last = (values[0].double().masked_fill(~inside, -torch.inf).softmax(-1) for values in (start, end))
    if tokenizer.cls_token_id in ids:
        inside[ids.index(tokenizer.cls_token_id)] = False
    both = (first[:, None] * last[None]).triu().tril(29) * inside[:, None] * inside[None]
    return float(both.max())


def _generate(model: Any, tokenizer: Any, request: dict[str, Any], max_length: int) -> str | None:
    encoded = tokenizer(request["prompt"], return_tensors="pt")
    parameters = request["parameters"]
    if encoded["input_ids"].shape[1] + parameters["max_new_tokens"] > max_length:
        return None
    inputs = {name: encoded[name] for name in ("input_ids", "attention_mask") if name in encoded}
    written = model.generate(**inputs, num_beams=1, **parameters)
    size = encoded["input_ids"].shape[1]
    before = tokenizer.decode(written[0, :size], skip_special_tokens=True)
    return str(tokenizer.decode(written[0], skip_special_tokens=True)[len(before) :])
