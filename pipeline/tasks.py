"""The tasks, one row each. CONTRIBUTING.md lists the other files that a new task needs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Task:
    """One task.

    name        the name of configs/NAME.yaml, handlers/NAME.py and pipeline/starters/NAME
    mode        the reference example's name for it
    auto_class  transformers' Auto class that loads its models
    heads       endings of the class names in `architectures` of a config.json
    outputs     names of the model's outputs, in order
    labelled    whether its models have labels (id2label)
    peft        PEFT's name for it (peft.TaskType); None if PEFT has none
    settings    settings of `handler:` that only some tasks have -> the default that is packed: a value, a function of
                max_length, or None, which packs nothing
    aliases     other tools' names for it
    fields      the texts of an input, in the order of tokenizing; the last may be longer than the model takes
    pairs       whether an input may be two texts
    per_token   whether the model answers for each token, so that a longer text is read in windows and not cut
    generates   whether it writes the text's next tokens
    samples     requests of different lengths in the handler's format, used if the config has none
    """

    name: str
    mode: str
    auto_class: str
    heads: tuple[str, ...]
    outputs: tuple[str, ...]
    labelled: bool
    peft: str | None
    settings: dict[str, Any]
    fields: tuple[str, ...]
    pairs: bool = False
    per_token: bool = True
    generates: bool = False
    aliases: tuple[str, ...] = ()
    samples: tuple[dict[str, Any], ...] = field(repr=False)


def _quarter(max_length: int) -> int:
    return max_length // 4


_ROWS = (
    Task(
        name="seq_classification",
        mode="sequence_classification",
        auto_class="AutoModelForSequenceClassification",
        heads=("ForSequenceClassification",),
        outputs=("logits",),
        labelled=True,
        peft="SEQ_CLS",
        settings={"labels": None, "top_k": 1},
        fields=("text",),
        pairs=True,
        per_token=False,
        aliases=("sentiment", "text-classification"),
        samples=(
            {"text": "The room was spotless and the staff could not have been kinder."},
            {"text": "Awful."},
            {
                "text": "We waited for an hour, the soup was cold when it came, and nobody said sorry: "
                "we are not going back there any time soon."
            },
            {"text": "Good value, and it arrived a day early!"},
        ),
    ),
    Task(
        name="token_classification",
        mode="token_classification",
        auto_class="AutoModelForTokenClassification",
        heads=("ForTokenClassification",),
        outputs=("logits",),
        labelled=True,
        peft="TOKEN_CLS",
        settings={"labels": None, "aggregation_strategy": "simple", "stride": _quarter},
        fields=("text",),
        aliases=("ner",),
        samples=(
            {"text": "Maria Lopez moved from Madrid to Berlin in March."},
            {"text": "Call Daniel."},
            {
                "text": "Last week Anna Schmidt of Siemens met James Carter in London to talk about "
                "a new factory near Warsaw, as the papers there reported."
            },
            {"text": "Nothing of note happened today."},
            # A hieroglyph: an unknown word to most tokenizers, which must not join the word before it.
            {"text": "Ask Maria Lopez \U00013000 about Berlin.", "aggregation_strategy": "first"},
        ),
    ),
    Task(
        name="question_answering",
        mode="question_answering",
        auto_class="AutoModelForQuestionAnswering",
        heads=("ForQuestionAnswering", "ForQuestionAnsweringSimple"),
        outputs=("start_logits", "end_logits"),
        labelled=False,
        peft="QUESTION_ANS",
        settings={"top_k": 1, "stride": _quarter, "max_answer_length": 30, "align_to_words": None},
        fields=("question", "context"),
        pairs=True,
        aliases=("qa",),
        samples=(
            {
                "question": "Where does Tom work?",
                "context": "Tom is a baker. He works in a small shop in Lisbon and gets up at four.",
            },
            {"question": "Who won?", "context": "Nora won."},
            {
                "question": "When does the library open on Saturdays?",
                "context": "The town library is in Mill Street. It opens at nine on weekdays. On Saturdays "
                "it opens at ten and closes at two, and on Sundays it stays shut.",
            },
        ),
    ),
    Task(
        name="text_generation",
        mode="text_generation",
        auto_class="AutoModelForCausalLM",
        heads=("LMHeadModel", "ForCausalLM"),
        outputs=("logits",),
        labelled=False,
        peft="CAUSAL_LM",
        settings={"generation": None},
        fields=("prompt",),
        generates=True,
        samples=(
            {"prompt": "Once upon a time", "parameters": {"max_new_tokens": 16, "do_sample": False}},
            {"prompt": "The", "parameters": {"max_new_tokens": 16, "do_sample": False}},
            {
                "prompt": "In the morning the old man opened the door, looked at the sky, and",
                "parameters": {"max_new_tokens": 16, "do_sample": False},
            },
        ),
    ),
)

TASKS: dict[str, Task] = {task.name: task for task in _ROWS}
MODES: dict[str, Task] = {task.mode: task for task in _ROWS}


def find(word: str) -> Task | None:
    """The task with this name or mode; None if there is none."""
    return TASKS.get(word) or MODES.get(word)
