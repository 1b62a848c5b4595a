"""Run by its path, under transformers 4: what its question-answering pipeline answers, for test_older_pipeline.py.

Standard input has [{"checkpoint", "max_length", "stride", "requests"}], the requests in the handlers' format; standard
output gets, for each request of each checkpoint, {"plain": the pipeline's answers, "spans": those of Spans below,
"windows": how many windows the context took}.
"""

from __future__ import annotations

import inspect
import json
import sys
from typing import Any

from transformers import AutoModelForQuestionAnswering, PreTrainedTokenizerFast, QuestionAnsweringPipeline

SPANS = 800
"""Answers to list where the pipeline is not to add any up: it looks at twice as many and ten in each window."""


class Spans(QuestionAnsweringPipeline):  # type: ignore[misc]
    """The pipeline without its last step, which adds up the scores of all answers that read alike, and with the words
    of the whole context: those of a window may be cut at its edges, and begin with the space before them."""

    whole: Any
    """The encoding of the question and the whole context."""

    def get_answer(self, _answers: list[dict[str, Any]], _target: str) -> None:
        return None

    def get_indices(self, enc: Any, s: int, e: int, sequence_index: int, align_to_words: bool) -> tuple[int, int]:
        first, last = (enc.token_to_word(s), enc.token_to_word(e)) if align_to_words else (None, None)
        return (
            enc.offsets[s][0] if first is None else self.whole.word_to_chars(first, sequence_index)[0],
            enc.offsets[e][1] if last is None else self.whole.word_to_chars(last, sequence_index)[1],
        )


def answers(job: dict[str, Any]) -> list[dict[str, Any]]:
    model = AutoModelForQuestionAnswering.from_pretrained(job["checkpoint"]).eval()
    # Transformers 5 writes a tokenizer's class under names that 4 has not; tokenizer.json is all that counts.
    tokenizer = PreTrainedTokenizerFast.from_pretrained(job["checkpoint"])
    takes = inspect.signature(model.forward).parameters
    tokenizer.model_input_names = [name for name in tokenizer.model_input_names if name in takes]
    plain, spans = (kind(model=model, tokenizer=tokenizer, device="cpu") for kind in (QuestionAnsweringPipeline, Spans))
    windows: dict[tuple[str, str], list[Any]] = {}
    found = []
    for one in job["requests"]:
        asked = (one["question"], one["context"])
        if asked not in windows:
            sample = plain.create_sample(*asked)
            cut = plain.preprocess(sample, max_seq_len=job["max_length"], doc_stride=job["stride"])
            windows[asked] = [plain.forward(window) for window in cut]
        (spans.whole,) = tokenizer(*asked).encodings
        options = {
            "max_answer_len": one["max_answer_length"],
            "handle_impossible_answer": one.get("handle_impossible_answer", False),
            "align_to_words": one["align_to_words"],
        }
        both = {
            "plain": plain.postprocess(windows[asked], top_k=one["top_k"], **options),
            "spans": spans.postprocess(windows[asked], top_k=SPANS, **options),
        }
        # One answer comes without a list around it.
        listed = {name: each if isinstance(each, list) else [each] for name, each in both.items()}
        found.append({**listed, "windows": len(windows[asked])})
    return found


if __name__ == "__main__":
    json.dump([answers(job) for job in json.load(sys.stdin)], sys.stdout)
