"""The tokens of a checkpoint's archive, by its handler and by AutoTokenizer."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

from mar_pipeline.answers import tokenization

OLDER = Path(sys.prefix) / "older"
"""The older line of transformers, beside the environment's own packages."""


def edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def counts(
    folder: Path,
    lower: bool | None = None,
    max_length: int | None = None,
    broken: Callable[[Path], None] = lambda _: None,
) -> dict[str, Any]:
    """What is compared for the archive of a checkpoint, which is `broken` after it was built. Raises MismatchError."""
    from handlers.text.chat import Chat
    from handlers.text.tokenization import Tokenizer
    from mar_pipeline.model.tokenizer import set_lower_case
    from mar_pipeline.portable import emulator
    from mar_pipeline.workers import packed_tokenizer
    from mar_pipeline.workers import tokenization as original_tokens

    config = json.loads((folder / "config.json").read_text())
    writes = config["architectures"][0].endswith(("CausalLM", "LMHeadModel"))
    rows = SimpleNamespace(weight=SimpleNamespace(shape=[config["vocab_size"]]))
    with TemporaryDirectory() as place:
        packed = Path(place)
        for file in folder.glob("*.json"):
            shutil.copy(file, packed)
        packed_tokenizer.pack({"checkpoint": str(folder), "out": place}, lambda *_: None)
        if lower is not None:
            set_lower_case(packed, lower)
        broken(packed)
        asked = tokenization.asked((packed, folder), pairs=not writes, talks=writes, max_length=max_length)
        job = {"checkpoint": str(folder), "corpus": asked, "settings": {"do_lower_case": lower}}
        own = Tokenizer(packed)
        chat = Chat(own.settings["chat_template"], own.settings["special_tokens"])
        handler = SimpleNamespace(tokenizer=own, chat=chat, task=SimpleNamespace(generates=writes))
        model = SimpleNamespace(get_input_embeddings=lambda: rows)
        wanted = original_tokens.expected(job, model, original_tokens.tokenizer(job))
        return tokenization.compared("own", packed, asked, wanted, emulator.tokens(handler, asked))


def ids(folder: Path, text: str) -> tuple[list[int], list[int], list[int]]:
    """The tokens of a text by an archive of the checkpoint, by AutoTokenizer, and by tokenizer.json alone."""
    from tokenizers import Tokenizer as Plain
    from transformers import AutoTokenizer

    from handlers.text.tokenization import Tokenizer
    from mar_pipeline.workers.packed_tokenizer import pack

    with TemporaryDirectory() as place:
        pack({"checkpoint": str(folder), "out": place}, lambda *_: None)
        (ours,) = Tokenizer(Path(place)).encode([text], None)
    return ours.ids, AutoTokenizer.from_pretrained(folder)(text)["input_ids"], plain(Plain, folder).encode(text).ids


def plain(kind: Any, folder: Path) -> Any:
    """What tokenizer.json says alone."""
    reader = kind.from_file(str(folder / "tokenizer.json"))
    reader.no_truncation()
    return reader


BERT = {"tokenizer_class": "BertTokenizer", "do_lower_case": True}
GPT2 = {"tokenizer_class": "GPT2Tokenizer"}
X = {"content": "<x>", **dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False), "special": True}
TAKE_EFFECT: dict[str, tuple[str, str, dict[str, Any], str]] = {
    # name: family, task, what only tokenizer_config.json says, a text that shows it
    "accents": ("bert", "seq_classification", {**BERT, "strip_accents": False}, "The Room was cléan"),
    "chinese": ("bert", "seq_classification", {**BERT, "tokenize_chinese_chars": False}, "a天b"),
    "case": ("bert", "seq_classification", {**BERT, "do_lower_case": False}, "The Room"),
    "prefix": ("gpt2", "text_generation", {**GPT2, "add_prefix_space": True}, "the room"),
    "more special tokens": ("gpt2", "text_generation", {"additional_special_tokens": ["ath"]}, "bathroom"),
    "added tokens": ("gpt2", "text_generation", {"added_tokens_decoder": {"400": X}}, "a<x>b"),
    "split special tokens": ("gpt2", "text_generation", {"split_special_tokens": True}, "a <|endoftext|> b"),
}
