"""Worker side: what the original model answers, computed by transformers itself from the original checkpoint.

This is the other side of the verify stage, so it shares no line with the handlers: pipelines of transformers
where it has one for the task, and the plainest arithmetic where it has none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import loading

if TYPE_CHECKING:
    from .worker import Report


def answers(job: dict[str, Any], report: Report) -> list[Any]:
    """The answer to each of the job's `requests`, in the handlers' format (less what only a server can know)."""
    import torch

    report("loading the original model", 0, None)
    model = loading.model(job)
    settings = job["settings"]
    lower = settings.get("do_lower_case")
    tokenizer = loading.tokenizer(job["checkpoint"], **({} if lower is None else {"do_lower_case": lower}))
    task = {
        "seq_classification": _classify,
        "token_classification": _tag,
        "question_answering": _find_answer,
        "text_generation": _generate,
    }[job["task"]]
    if lower and tokenizer("A").input_ids != tokenizer("a").input_ids:
        # A tokenizer that ignores the setting: the archive's was made to heed it, so here the texts are lowered.
        task = _lowered(task)
    found = []
    with torch.inference_mode():
        for number, request in enumerate(job["requests"]):
            report("asking the original model", number, len(job["requests"]))
            found.append(task(model, tokenizer, request, settings))
    return found


def _lowered(task: Any) -> Any:
    def ask(model: Any, tokenizer: Any, request: Any, settings: dict[str, Any]) -> Any:
        if isinstance(request, str):
            return task(model, tokenizer, request.lower(), settings)
        words = {name: value.lower() if isinstance(value, str) else value for name, value in request.items()}
        return task(model, tokenizer, words, settings)

    return ask


def _inputs(model: Any, encoded: Any) -> dict[str, Any]:
    kept = {name: encoded[name] for name in ("input_ids", "attention_mask") if name in encoded}
    if "token_type_ids" in encoded and loading.takes_token_types(model):
        kept["token_type_ids"] = encoded["token_type_ids"]
    return kept


def _classify(model: Any, tokenizer: Any, request: Any, settings: dict[str, Any]) -> Any:
    import torch

    request = {"text": request} if isinstance(request, str) else request
    encoded = tokenizer(
        request["text"],
        request.get("text_pair"),
        truncation=True,
        max_length=settings["max_length"],
        return_tensors="pt",
    )
    logits = model(**_inputs(model, encoded)).logits[0].double()
    kind = model.config.problem_type
    if kind == "regression" or (kind is None and logits.shape[-1] == 1):
        scores = logits
    elif kind == "multi_label_classification":
        scores = torch.sigmoid(logits)
    else:
        scores = torch.softmax(logits, -1)
    ranked = sorted(range(len(scores)), key=lambda index: -float(scores[index]))
    found = [{"label": model.config.id2label[index], "score": float(scores[index])} for index in ranked]
    top_k = request.get("top_k", settings.get("top_k", 1))
    return found[0] if top_k == 1 else found[:top_k]


def _tag(model: Any, tokenizer: Any, request: Any, settings: dict[str, Any]) -> list[dict[str, Any]]:
    from transformers import TokenClassificationPipeline

    request = {"text": request} if isinstance(request, str) else request
    strategy = request.get("aggregation_strategy", settings.get("aggregation_strategy", "simple"))
    tag = TokenClassificationPipeline(model=model, tokenizer=tokenizer, aggregation_strategy=strategy, device="cpu")
    return [
        {
            "label": entity.get("entity_group") or entity["entity"],
            "score": float(entity["score"]),
            "text": request["text"][entity["start"] : entity["end"]],
            "start": int(entity["start"]),
            "end": int(entity["end"]),
        }
        for entity in tag(request["text"])
    ]


def _find_answer(model: Any, tokenizer: Any, request: dict[str, Any], settings: dict[str, Any]) -> Any:
    """Every span of context tokens, scored by the product of its softmaxed ends, widened to words: the best of them.

    This is what transformers 4's question-answering pipeline does; 5 has none. The class token is in the softmax too.
    """
    import torch

    context = request["context"]
    encoded = tokenizer(request["question"], context, return_tensors="pt", return_offsets_mapping=True)
    out = model(**_inputs(model, encoded))
    inside = [index for index, segment in enumerate(encoded.sequence_ids(0)) if segment == 1]
    ids = encoded["input_ids"][0].tolist()
    null = [ids.index(tokenizer.cls_token_id)] if tokenizer.cls_token_id in ids else []
    starts = torch.softmax(out.start_logits[0, inside + null].double(), -1)
    ends = torch.softmax(out.end_logits[0, inside + null].double(), -1)
    longest = request.get("max_answer_length", settings.get("max_answer_length", 30))
    spans = [
        (float(starts[a] * ends[b]), a, b) for a in range(len(inside)) for b in range(a, min(len(inside), a + longest))
    ]
    offsets = encoded["offset_mapping"][0].tolist()
    score, first, last = max(spans)
    start, end = offsets[inside[first]][0], offsets[inside[last]][1]
    if (word := encoded.token_to_word(0, inside[first])) is not None:
        start = encoded.word_to_chars(0, word, 1).start
    if (word := encoded.token_to_word(0, inside[last])) is not None:
        end = encoded.word_to_chars(0, word, 1).end
    return {"answer": context[start:end], "score": score, "start": start, "end": end}


def _generate(model: Any, tokenizer: Any, request: Any, settings: dict[str, Any]) -> dict[str, Any]:
    request = {"prompt": request} if isinstance(request, str) else request
    parameters = {**(settings.get("generation") or {}), **request.get("parameters", {})}
    encoded = tokenizer(request["prompt"], return_tensors="pt")
    ids = encoded["input_ids"]
    room = settings["max_length"] - ids.shape[1]
    chosen = {name: parameters[name] for name in ("repetition_penalty",) if name in parameters}
    out = model.generate(
        input_ids=ids,
        attention_mask=encoded["attention_mask"],
        max_new_tokens=max(1, min(int(parameters.get("max_new_tokens", 64)), room)),
        do_sample=False,
        num_beams=1,
        pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id,
        **chosen,
    )
    return {"generated_text": tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)}
