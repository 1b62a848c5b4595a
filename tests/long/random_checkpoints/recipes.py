"""Draws recipes of checkpoints: the same one for the same number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from tests.support import tiny
from tests.support.mar import MODES


@dataclass(frozen=True)
class Recipe:
    """A checkpoint, its build, and the requests that it is asked. The dicts are merged into the file of their name."""

    family: str
    tokenizer: str
    """The family whose tokenizer it has."""
    task: str
    mode: str
    dtype: str
    layout: str
    shape: dict[str, Any]
    """Changes to the configuration that the weights are made for."""
    config: dict[str, Any]
    tokenizer_config: dict[str, Any]
    tokens: tuple[dict[str, Any], ...]
    """Added tokens, as tokenizers.AddedToken has them."""
    generation_config: dict[str, Any]
    requests: tuple[dict[str, Any], ...]


LAYOUTS = ("one", "bin", "shards", "stale index", "stale bin", "trainer", "metadata")
_DTYPES = ("float32", "float32", "float32", "bfloat16", "float16")
_CONFIG: dict[str, Sequence[Any]] = {
    "output_hidden_states": (True, False),
    "output_attentions": (True, False),
    "return_dict": (True, False),
    "use_cache": (True, False),
    "chunk_size_feed_forward": (0, 4),
    "torchscript": (True, False),
    "pad_token_id": (None, 0, 1, 2),
    "eos_token_id": (None, 0, 2, [2], [2, 0]),
    "architectures": (None, []),
    "attn_implementation": ("eager", "sdpa"),
    "tokenizer_class": (None, "PreTrainedTokenizerFast"),
    "tie_word_embeddings": (True, False),
    "max_length": (20, 40),
    "temperature": (0.5,),
    "label2id": ({},),
    "transformers_version": ("4.6.0", "5.24.0", "4.40.0.dev0"),
    "dtype": ("float32", "bfloat16", None),
    "torch_dtype": ("float32", "float16"),
}
_TOKENIZER: dict[str, Sequence[Any]] = {
    "do_lower_case": (True, False),
    "strip_accents": (True, False, None),
    "tokenize_chinese_chars": (True, False),
    "add_prefix_space": (True, False),
    "clean_up_tokenization_spaces": (True, False),
    "truncation_side": ("left", "right"),
    "padding_side": ("left", "right"),
    "model_max_length": (24, 64, 512, int(1e30)),
    "add_bos_token": (True, False),
    "add_eos_token": (True, False),
    "trim_offsets": (True, False),
    "split_special_tokens": (True, False),
    "tokenizer_class": (
        "PreTrainedTokenizerFast", "BertTokenizer", "BertTokenizerFast", "GPT2Tokenizer", "GPT2TokenizerFast",
        "RobertaTokenizer", "LlamaTokenizer", "LlamaTokenizerFast", "XLMRobertaTokenizer", "DistilBertTokenizer",
    ),
    "model_input_names": (
        ["input_ids", "attention_mask"], ["input_ids", "token_type_ids", "attention_mask"], ["input_ids"],
    ),
    "pad_token": (None,),
}  # fmt: skip
_GENERATION: dict[str, Sequence[Any]] = {
    "max_new_tokens": (3, 7),
    "max_length": (12, 30),
    "min_new_tokens": (2, 4),
    "do_sample": (True, False),
    "temperature": (0.0, 0.7),
    "repetition_penalty": (1.3, 0.8),
    "eos_token_id": (2, [0, 2], None),
    "pad_token_id": (0, 1, None),
    "num_beams": (1, 2),
    "no_repeat_ngram_size": (0, 2),
    "suppress_tokens": ([40, 41], None),
    "bad_words_ids": ([[50]], None),
    "forced_eos_token_id": (2, None),
    "use_cache": (True, False),
    "top_k": (0, 5),
}
_TAGS = (
    ["O", "B-PER", "I-PER"], ["A", "B"], ["LABEL_0", "LABEL_1", "LABEL_2"], ["I-X", "O"],
    ["B-größe", "I-größe", "O", "S-x"],
)  # fmt: skip
_LABELS = ["très bien", "no / yes", "</s>", "0", "x\ty"]
_ODD = ("naïve", "中文", "Ünïcode", "😀", "e\u0301", "  ", "\n", "A.B", "don't", "$5.00", "[MASK]", "</s>", "<pad>",
        "日本", "ΑΣ", "2023", "x" * 30, "\u200b", "İ", "(a,b)", "##ing", "▁the")  # fmt: skip


def recipe(number: int) -> Recipe:
    """The recipe with that number. transformers itself does not load each of them."""
    draw = Random(number)
    task = draw.choice(sorted(tiny.AUTO))
    family = draw.choice([family for family in tiny.FAMILIES if tiny.has(family, task)])
    return Recipe(
        family=family,
        # Most checkpoints have their family's own tokenizer.
        tokenizer=draw.choice([family] * 6 + ["bert", "roberta", "gpt2", "xlm-roberta", "llama", "mistral"]),
        task=task,
        mode=draw.choice(MODES),
        dtype=draw.choice(_DTYPES),
        layout=draw.choice(LAYOUTS),
        shape=_head(draw, task),
        config=_some(draw, _CONFIG),
        tokenizer_config=_some(draw, _TOKENIZER),
        tokens=tuple(_token(draw, word) for word in _few(draw, ("[URL]", "<sep2>", "Maria", "#x#"), 2)),
        generation_config=_some(draw, _GENERATION) if task == "text_generation" else {},
        requests=tuple(_request(draw, task) for _ in range(draw.randint(4, 8))),
    )


def _few(draw: Random, values: Sequence[str], most: int) -> list[str]:
    return draw.sample(values, draw.randint(0, most))


def _some(draw: Random, table: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    return {name: draw.choice(table[name]) for name in _few(draw, sorted(table), 3)}


def _token(draw: Random, word: str) -> dict[str, Any]:
    flags = _few(draw, ("lstrip", "rstrip", "single_word", "normalized", "special"), 3)
    return {"content": word, **{name: draw.random() < 0.5 for name in flags}}


def _head(draw: Random, task: str) -> dict[str, Any]:
    if task == "token_classification":
        return {"id2label": dict(enumerate(draw.choice(_TAGS)))}
    if task != "seq_classification":
        return {}
    count = draw.choice((1, 2, 3, 5))
    kinds = (None, None, "regression", "single_label_classification", "multi_label_classification")
    names = draw.choice((None, [f"l{number}" for number in range(count)], _LABELS[:count]))
    head: dict[str, Any] = {"num_labels": count} if names is None else {"id2label": dict(enumerate(names))}
    kind = draw.choice(kinds)
    return {**head, "problem_type": kind} if kind else head


def _request(draw: Random, task: str) -> dict[str, Any]:
    def text(least: int, most: int) -> str:
        count = draw.randint(least, most)
        return " ".join(draw.choice(tiny.WORDS if draw.random() < 0.6 else _ODD) for _ in range(count)).strip() or "a"

    def perhaps(**fields: Any) -> dict[str, Any]:
        return fields if draw.random() < 0.4 else {}

    if task == "seq_classification":
        return {"text": text(1, draw.choice((12, 80))), **perhaps(text_pair=text(1, 10))}
    if task == "token_classification":
        how = draw.choice(("none", "simple", "first", "average", "max"))
        return {"text": text(1, 14), **perhaps(aggregation_strategy=how)}
    if task == "question_answering":
        return {"question": text(1, 5), "context": text(3, 14)}
    written = {"do_sample": False, "max_new_tokens": draw.choice((1, 5, 12))}
    return {"prompt": text(1, 14), "parameters": {**written, **perhaps(repetition_penalty=1.5)}}
