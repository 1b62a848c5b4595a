"""Worker side: the original model's answers, computed by transformers from the original checkpoint.

The verify stage compares archives with these answers, so no code is shared with the handlers: the code here uses
transformers' pipeline for a task, or the simplest arithmetic where there is none.
"""

from __future__ import annotations

import inspect
import unicodedata
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..tasks import TASKS
from . import loading, tokenization
from .original import Original, inputs

if TYPE_CHECKING:
    from ..portable.protocol import Report


def expected(job: dict[str, Any], report: Report) -> dict[str, Any]:
    """What an archive is compared with: {"answers": see `answers`, "tokens": see `tokenization.expected`, "model": the
    model's class}."""
    report("loading the original model", 0, None)
    original, tokenizer = Original(lambda: loading.model(job)), tokenization.tokenizer(job)
    tokens = tokenization.expected(job, original.model, tokenizer)
    return {
        "answers": _answers(job, report, original, tokenizer),
        "tokens": tokens,
        "model": type(original.model).__name__,
    }


def answers(job: dict[str, Any], report: Report) -> list[Any]:
    """The answer to each of the job's `requests`, in the handlers' format."""
    report("loading the original model", 0, None)
    return _answers(job, report, Original(lambda: loading.model(job)), tokenization.tokenizer(job))


def _answers(job: dict[str, Any], report: Report, original: Original, tokenizer: Any) -> list[Any]:
    import torch

    settings = job["settings"]
    task = {
        "seq_classification": _classify,
        "token_classification": _tag,
        "question_answering": _find_answer,
        "text_generation": _generate,
    }[job["task"]]

    def ask(number: int, request: Any) -> Any:
        if isinstance(request, list):
            return [ask(number, one) for one in request]
        if isinstance(request, dict) and isinstance(request.get("instances"), list):
            return {"predictions": ask(number, request["instances"])}
        with original.asked(number) as model:
            return task(model, tokenizer, {plain: request} if isinstance(request, str) else request, settings)

    plain = TASKS[job["task"]].fields[-1]
    torch.seed()  # loading sets a seed, which would hide that a model's answers are random
    results = []
    with torch.inference_mode():
        for number, request in enumerate(job["requests"]):
            report("asking the original model", number, len(job["requests"]))
            results.append(ask(number + 1, request))
    return results


def _classify(model: Any, tokenizer: Any, request: Any, settings: dict[str, Any]) -> Any:
    import torch

    encoded = tokenizer(
        request["text"],
        request.get("text_pair"),
        truncation=True,
        max_length=settings["max_length"],
        return_tensors="pt",
    )
    logits = model(**inputs(model, encoded)).logits[0].double()
    kind = model.config.problem_type
    if kind == "regression":
        scores = logits
    elif kind == "multi_label_classification" or logits.shape[-1] == 1:
        scores = torch.sigmoid(logits)
    else:
        scores = torch.softmax(logits, -1)
    ranked = sorted(range(len(scores)), key=lambda index: -float(scores[index]))
    labels = [{"label": model.config.id2label[index], "score": float(scores[index])} for index in ranked]
    top_k = request.get("top_k", settings.get("top_k", 1))
    return labels[0] if top_k == 1 else labels[:top_k]


def _tag(model: Any, tokenizer: Any, request: Any, settings: dict[str, Any]) -> list[dict[str, Any]]:
    import numpy as np
    import torch
    from transformers import TokenClassificationPipeline
    from transformers.pipelines.token_classification import AggregationStrategy

    text = request["text"]
    strategy = request.get("aggregation_strategy", settings.get("aggregation_strategy", "simple"))
    if "token_type_ids" not in inspect.signature(model.forward).parameters:
        # The pipeline passes on everything that the tokenizer returns.
        tokenizer.model_input_names = [name for name in tokenizer.model_input_names if name != "token_type_ids"]
    tag = TokenClassificationPipeline(model=model, tokenizer=tokenizer, aggregation_strategy=strategy, device="cpu")
    limit = settings["max_length"]
    stride = min(settings.get("stride", limit // 4), limit - tokenizer.num_special_tokens_to_add() - 1)
    windows = _windows(tokenizer, (text,), limit, stride)
    if len(windows) == 1:
        entities = tag(text)
    else:
        # Each token's scores are from the window in which it is farthest from a cut.
        best: dict[int, tuple[int, Any, int, list[int]]] = {}
        begin = 0
        for number, window in enumerate(windows):
            scores = torch.softmax(model(**inputs(model, window)).logits[0].float(), -1).numpy()
            content = [i for i, special in enumerate(window["special_tokens_mask"][0].tolist()) if not special]
            for place, index in enumerate(content):
                before = place if number else len(text)
                after = len(content) - 1 - place if number < len(windows) - 1 else len(text)
                room = min(before, after)
                if begin + place not in best or room >= best[begin + place][0]:
                    offsets = window["offset_mapping"][0, index].tolist()
                    best[begin + place] = (room, scores[index], int(window["input_ids"][0, index]), offsets)
            begin += len(content) - stride
        tokens = [best[place] for place in sorted(best)]
        whole = tag.gather_pre_entities(
            text,
            np.array([token[2] for token in tokens]),
            np.stack([token[1] for token in tokens]),
            np.array([token[3] for token in tokens]),
            np.zeros(len(tokens), dtype=int),
            AggregationStrategy(strategy),
        )
        joined = tag.aggregate(whole, AggregationStrategy(strategy))
        entities = [one for one in joined if (one.get("entity") or one["entity_group"]) != "O"]
    return [
        {
            "label": entity.get("entity_group") or entity["entity"],
            "score": float(entity["score"]),
            "text": text[entity["start"] : entity["end"]],
            "start": int(entity["start"]),
            "end": int(entity["end"]),
        }
        for entity in entities
    ]


def _windows(tokenizer: Any, texts: tuple[str, ...], limit: int, stride: int) -> list[Any]:
    """Windows of `limit` tokens over a text, or over the second of two, each as model inputs of batch 1."""
    from transformers import BatchEncoding

    # With "left", the first window would be the text's end.
    tokenizer.truncation_side = "right"
    cut = tokenizer(
        *texts,
        truncation="only_second" if len(texts) == 2 else True,
        max_length=limit,
        stride=stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
        return_special_tokens_mask=True,
    )
    return [
        BatchEncoding({name: [row[number]] for name, row in cut.items()}, [cut.encodings[number]], "pt")
        for number in range(len(cut["input_ids"]))
    ]


def _find_answer(model: Any, tokenizer: Any, request: dict[str, Any], settings: dict[str, Any]) -> Any:
    """The best spans of context tokens, scored by the product of the softmaxed start and end, and widened to words.

    transformers 4's question-answering pipeline does the same; version 5 has none. The softmax includes the class
    token. The pipeline always widens, unless align_to_words is false; here, by default, not in scripts without spaces.
    """
    import torch

    if tokenizer.padding_side == "left":
        raise _context_first(tokenizer)
    context, limit = request["context"], settings["max_length"]
    longest = request.get("max_answer_length", settings.get("max_answer_length", 30))
    room = limit - len(tokenizer(request["question"], "")["input_ids"])
    nothing, scores = 1.0, dict[tuple[int, int], float]()
    stride = min(settings.get("stride", limit // 4), room // 2)
    align = request.get("align_to_words", settings.get("align_to_words"))
    # A window's edge may cut a word: word boundaries come from the whole text.
    whole = tokenizer(request["question"], context, truncation=False, verbose=False)
    for window in _windows(tokenizer, (request["question"], context), limit, stride):
        out = model(**inputs(model, window))
        inside = [index for index, segment in enumerate(window.sequence_ids(0)) if segment == 1]
        ids = window["input_ids"][0].tolist()
        null = [ids.index(tokenizer.cls_token_id)] if tokenizer.cls_token_id in ids else []
        starts = torch.softmax(out.start_logits[0, inside + null].double(), -1)
        ends = torch.softmax(out.end_logits[0, inside + null].double(), -1)
        nothing = min(nothing, float(starts[-1] * ends[-1]) if null else 0.0)
        offsets = window["offset_mapping"][0].tolist()
        for a in range(len(inside)):
            for b in range(a, min(len(inside), a + longest)):
                start, end = offsets[inside[a]][0], offsets[inside[b]][1]
                if (word := _word(window, inside[a], whole, context, align)) is not None:
                    start = word.start
                if (word := _word(window, inside[b], whole, context, align)) is not None:
                    end = word.end
                if start < end:
                    scores[start, end] = max(scores.get((start, end), 0.0), float(starts[a] * ends[b]))
    if request.get("handle_impossible_answer"):
        scores[0, 0] = nothing
    ranked = sorted(scores, key=lambda span: -scores[span])
    top_k = request.get("top_k", settings.get("top_k", 1))
    answers = [{"answer": context[s:e], "score": scores[s, e], "start": s, "end": e} for s, e in ranked[:top_k]]
    if top_k > 1:
        return answers
    return answers[0] if answers else {"answer": "", "score": 0.0, "start": 0, "end": 0}


def _context_first(tokenizer: Any) -> InputError:
    return InputError(
        f"The tokenizer ({type(tokenizer).__name__}) pads on the left, which no handler for question answering serves.",
        "transformers' training script and pipeline for question answering put the context before the question where "
        "a tokenizer pads on the left (XLNet, Llama); the archive's handler puts the question first.",
        'If the model was trained with the question first, set padding_side to "right" in tokenizer_config.json.',
    )


_UNSPACED = {"CJK", "HIRAGANA", "KATAKANA", "BOPOMOFO", "THAI", "LAO", "TIBETAN", "MYANMAR", "KHMER", "TAI"}
"""First words of the Unicode names of characters in scripts without spaces between words."""


def _word(window: Any, token: int, whole: Any, context: str, align: bool | None) -> Any:
    """The place in the context of the word that a token belongs to; None if the token's own place counts."""
    number = window.token_to_word(0, token)
    if align is False or number is None:
        return None
    place = whole.word_to_chars(0, number, 1)
    names = {
        unicodedata.name(letter, "").replace("-", " ").split(" ")[0] for letter in context[place.start : place.end]
    }
    return place if align or not names & _UNSPACED else None


def _generate(model: Any, tokenizer: Any, request: Any, settings: dict[str, Any]) -> dict[str, Any]:
    parameters = {**(settings.get("generation") or {}), **request.get("parameters", {})}
    chat = "messages" in request
    prompt = tokenization.prompt(tokenizer, request["messages"]) if chat else request.get("prompt", request.get("text"))
    encoded = tokenizer(prompt, return_tensors="pt", add_special_tokens=not chat)
    ids = encoded["input_ids"]
    room = settings["max_length"] - ids.shape[1]
    chosen = {name: parameters[name] for name in ("repetition_penalty",) if name in parameters}
    most = parameters.get("max_new_tokens") or model.generation_config.max_new_tokens
    if not most:
        # 64, unless that exceeds the checkpoint's max_length; 20 is transformers 4's own default.
        total = model.generation_config.max_length
        most = 64 if total in (None, 20) else max(1, min(64, total - ids.shape[1]))
    out = model.generate(
        input_ids=ids,
        attention_mask=encoded.get("attention_mask"),
        max_new_tokens=max(1, min(int(most), room)),
        do_sample=False,
        num_beams=1,
        num_return_sequences=1,
        return_dict_in_generate=False,
        **chosen,
    )
    new = out[0, ids.shape[1] :].tolist()
    before = len(tokenization.decoded(tokenizer, ids[0].tolist()))
    written = [
        tokenization.decoded(tokenizer, [*ids[0].tolist(), *new[:count]])[before:] for count in range(1, len(new) + 1)
    ]
    ends = model.generation_config.eos_token_id
    finish = "stop" if new[-1] in (ends if isinstance(ends, list) else [ends]) else "length"
    text, tokens = written[-1], len(new)
    stop = parameters.get("stop", [])
    # A text ends with the token that completes a stop word.
    for count, part in enumerate(written, 1):
        if cuts := [part.find(word) for word in ([stop] if isinstance(stop, str) else stop) if word in part]:
            text, tokens, finish = part[: min(cuts)], count, "stop"
            break
    return {
        "generated_text": prompt + text if parameters.get("return_full_text") else text,
        "tokens": tokens,
        "finish_reason": finish,
    }
