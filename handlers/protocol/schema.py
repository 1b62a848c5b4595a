"""The requests and answers of each task, as JSON Schema (2020-12). `requests` checks with the same tables."""

from __future__ import annotations

from typing import Any

from .tensors import KINDS

MAX_INPUTS = 256
"""The most inputs in one request: a longer list would delay all other requests."""

MAX_CHARACTERS = 200_000
"""The most characters of one text: some 50,000 tokens of English. `text.windows` limits the tokens of texts that are
read as a whole."""

MAX_CHARACTERS_TOGETHER = 1_000_000
"""The most characters of all texts of one request: a second of a tokenizer's work. Not expressible in JSON Schema."""

TEXT = {"type": "string", "minLength": 1, "maxLength": MAX_CHARACTERS, "pattern": r"\S"}
SCORE = {"type": "number"}
COUNT = {"type": "integer", "minimum": 1, "maximum": 1_000_000}
STOP = {"type": "string", "minLength": 1, "maxLength": 1000}


def _object(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {**required, **(optional or {})},
        "required": list(required),
        "additionalProperties": False,
    }


GENERATION: dict[str, dict[str, Any]] = {
    "max_new_tokens": {"type": "integer", "minimum": 1, "maximum": 100_000},
    "do_sample": {"type": "boolean"},
    "temperature": {"type": "number", "minimum": 0.001, "maximum": 100},
    "top_k": {"type": "integer", "minimum": 0, "maximum": 1_000_000},
    "top_p": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
    "repetition_penalty": {"type": "number", "minimum": 0.001, "maximum": 100},
    "stop": {"anyOf": [STOP, {"type": "array", "items": STOP, "maxItems": 16}]},
    "seed": {"type": "integer", "minimum": 0, "maximum": 2**63 - 1},
    "return_full_text": {"type": "boolean"},
}
_PARAMETERS = {"type": "object", "properties": GENERATION, "additionalProperties": False}

_MESSAGES = {
    "type": "array",
    "minItems": 1,
    "maxItems": MAX_INPUTS,
    "items": _object({"role": {"type": "string", "minLength": 1}, "content": TEXT}),
}

IGNORED: dict[str, Any] = {"description": "Ignored: it says what an explanation is about."}
"""The rule of a field that may have any value."""

INPUTS: dict[str, dict[str, Any]] = {
    "seq_classification": _object({"text": TEXT}, {"text_pair": TEXT, "top_k": COUNT, "target": IGNORED}),
    "token_classification": _object(
        {"text": TEXT},
        {"aggregation_strategy": {"enum": ["none", "simple", "first", "average", "max"]}, "target": IGNORED},
    ),
    "question_answering": _object(
        {"question": TEXT, "context": TEXT},
        {
            "top_k": {**COUNT, "maximum": 100},
            "max_answer_length": {**COUNT, "maximum": 1000},
            "handle_impossible_answer": {"type": "boolean"},
            "target": IGNORED,
            "align_to_words": {"type": "boolean"},
        },
    ),
    "text_generation": {
        **_object(
            {},
            {
                "prompt": TEXT,
                "text": TEXT,
                "messages": _MESSAGES,
                "parameters": _PARAMETERS,
                "stream": {"type": "boolean"},
                "target": IGNORED,
            },
        ),
        "oneOf": [{"required": ["prompt"]}, {"required": ["messages"]}, {"required": ["text"]}],
    },
}
"""Task -> the schema of one input. `text` is another name for a prompt, by which all other tasks call a text."""

_NAME = {"type": "string", "minLength": 1}
_INDEX = {"type": "integer", "minimum": 0}
_STEPS = {"steps": {"type": "integer", "minimum": 1, "maximum": 500}}
_TARGET = {"target": {"anyOf": [_NAME, _INDEX]}, **_STEPS}
_PLACE = {"type": "array", "items": _INDEX, "minItems": 2, "maxItems": 2}
EXPLAINED: dict[str, dict[str, Any]] = {
    "seq_classification": _object({"text": TEXT}, {"text_pair": TEXT, **_TARGET}),
    "token_classification": _object(
        {"text": TEXT}, {"at": _INDEX, "target": {"anyOf": [_NAME, _INDEX, _PLACE]}, **_STEPS}
    ),
    "question_answering": _object({"question": TEXT, "context": TEXT}, _TARGET),
    "text_generation": {
        **_object({}, {"prompt": TEXT, "text": TEXT, **_TARGET}),
        "oneOf": [{"required": ["prompt"]}, {"required": ["text"]}],
    },
}
"""Task -> the schema of one input to explain. `target` is a label, an answer, or the continuation of a text; or, as in
TorchServe's example for transformers, a number: of a label, of the token where an answer begins and ends, or a token's
id. [1, 2] is label 2 at token 1."""

PLAIN: dict[str, str | None] = {
    "seq_classification": "text",
    "token_classification": "text",
    "question_answering": None,
    "text_generation": "prompt",
}
"""Task -> the field that a plain string sets; None if a task needs more than one."""

_LABELLED = _object({"label": {"type": "string"}, "score": SCORE})
_SPAN = {"start": {"type": "integer", "minimum": 0}, "end": {"type": "integer", "minimum": 0}}
_ANSWER = _object({"answer": {"type": "string"}, "score": SCORE, **_SPAN})
_ENTITY = _object({"label": {"type": "string"}, "score": SCORE, "text": {"type": "string"}, **_SPAN})
ANSWERS: dict[str, dict[str, Any]] = {
    "seq_classification": {"anyOf": [_LABELLED, {"type": "array", "items": _LABELLED}]},
    "token_classification": {"type": "array", "items": _ENTITY},
    "question_answering": {"anyOf": [_ANSWER, {"type": "array", "items": _ANSWER}]},
    "text_generation": _object(
        {
            "generated_text": {"type": "string"},
            "tokens": {"type": "integer", "minimum": 0},
            "finish_reason": {"enum": ["stop", "length"]},
        }
    ),
}


_ID = {"type": "string"}
_TENSOR = _object(
    {
        "name": {"type": "string"},
        "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
        "datatype": {"enum": list(KINDS)},
        "data": {"type": "array", "minItems": 1, "maxItems": MAX_INPUTS},
    },
    {"parameters": {"type": "object"}},
)
_OUTPUT = _object({"name": {"type": "string"}}, {"parameters": {"type": "object"}})
TENSORS = _object(
    {"inputs": {"type": "array", "items": _TENSOR, "minItems": 1}},
    {"id": _ID, "parameters": {"type": "object"}, "outputs": {"type": "array", "items": _OUTPUT}},
)
_TENSOR_RESPONSE = _object(
    {"model_name": {"type": "string"}, "outputs": {"type": "array", "items": _TENSOR}}, {"id": _ID}
)
"""KServe's v2 protocol (https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol): a tensor
for each field, and a tensor with each answer as JSON."""


_IMPORTANCE = {"importance": SCORE, "field": {"type": "string"}, **_SPAN}
EXPLANATION = _object(
    {
        "target": {"type": "string"},
        "value": SCORE,
        "baseline": SCORE,
        "delta": SCORE,
        "tokens": {
            "type": "array",
            "items": {**_object({"token": {"type": "string"}}, _IMPORTANCE), "required": ["token", "importance"]},
        },
        "words": {"type": "array", "items": _object({"text": {"type": "string"}, **_IMPORTANCE})},
    }
)


def names(properties: dict[str, Any]) -> str:
    """The fields of an input for a message, without those that are ignored."""
    return ", ".join(name for name, rule in properties.items() if rule != IGNORED)


def schema(task: str) -> dict[str, Any]:
    """{"request": ..., "response": ..., "explain": ..., "explanation": ...} of a task: the content of `schema.json`
    in an archive. The latter two are for one input; lists and envelopes are as in the former."""
    forms = [INPUTS[task]] + ([TEXT] if PLAIN[task] else [])
    one = {"anyOf": forms}
    many = {"type": "array", "items": one, "minItems": 1, "maxItems": MAX_INPUTS}
    answer = ANSWERS[task]
    error = {
        "type": "object",
        "properties": {"error": _object({"message": {"type": "string"}}, {"field": {"type": "string"}})},
        "required": ["error"],
    }
    draft = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    instances = _object({"instances": many}, {"target": IGNORED})
    return {
        "request": {**draft, "anyOf": [one, many, instances, TENSORS]},
        "response": {
            **draft,
            "anyOf": [
                answer,
                {"type": "array", "items": answer},
                _object({"predictions": {"type": "array", "items": answer}}),
                _TENSOR_RESPONSE,
                error,
            ],
        },
        "explain": {**draft, **EXPLAINED[task]},
        "explanation": {**draft, **EXPLANATION},
    }
