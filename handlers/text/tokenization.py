"""Tokenizes texts by the archive's tokenizer.json, with only the package `tokenizers`."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tokenizers
import torch
from tokenizers import Encoding
from tokenizers import Tokenizer as Reader

from ..protocol import tokenizer_settings

MERGES = (0, 20)
"""From this release on, tokenizers writes BPE merges in a format that older releases cannot read."""

_BYTE = re.compile("<0x[0-9A-F]{2}>")

_SPACES = (" .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're")
"""What transformers removes the spaces of, one after another (`clean_up_tokenization`)."""

_UNSETTLED = 5
"""The most characters at the end of a text that the removal of spaces may still change: one less than the longest text
that loses its first space, which is " n ' t"."""


class Tokenizer:
    """The tokenizer of an unpacked archive. Raises FileNotFoundError if the archive has none, ValueError if it cannot
    be read."""

    unsettled = 0
    """The characters at the end of a decoded text that later tokens may change."""

    def __init__(self, model_dir: Path) -> None:
        file = model_dir / "tokenizer.json"
        if not file.exists():
            raise FileNotFoundError(f"the archive has no tokenizer.json: {file}")
        try:
            self.reader = Reader.from_file(str(file))
        except Exception as error:  # the package raises plain Exception
            raise _read_error(model_dir, error) from error
        self.reader.no_padding()
        self.reader.no_truncation()
        self.settings = tokenizer_settings.read(model_dir)
        if self.settings["split_special_tokens"]:
            _split_special_tokens(self.reader)
        self.side = self.settings["truncation_side"]
        if self.settings["clean_up_tokenization_spaces"]:
            self.unsettled = _UNSETTLED
        self.cls = self._id("cls_token")
        self.unknown = self._id("unk_token")
        self.eos = self._id("eos_token")
        self.pad = self._padding(_read(model_dir / "config.json"))
        model = json.loads(self.reader.to_str())["model"]
        self.subword_prefix: str | None = model.get("continuing_subword_prefix") or None
        self.specials = self.reader.num_special_tokens_to_add(False)

    def _id(self, name: str) -> int | None:
        token = self.settings["special_tokens"].get(name)
        return None if token is None else self.reader.token_to_id(token)

    def _padding(self, config: dict[str, Any]) -> int:
        """The id to pad with: the model's own, since some models look for it in their input. Otherwise any id will do,
        since padding is masked."""
        size = config.get("vocab_size")
        ends = config.get("eos_token_id")
        own = (
            config.get("pad_token_id"),
            self._id("pad_token"),
            self.eos,
            *(ends if isinstance(ends, list) else [ends]),
        )
        ids = [pad for pad in own if isinstance(pad, int) and 0 <= pad < (size if isinstance(size, int) else pad + 1)]
        return ids[0] if ids else 0

    def encode(
        self, texts: Sequence[str | tuple[str, str]], max_length: int | None, *, special: bool = True
    ) -> list[Encoding]:
        """An encoding of each text or pair, truncated to `max_length` tokens, the longer text of a pair first. With
        `special` false, no special tokens are added."""
        if max_length is None:
            self.reader.no_truncation()
        else:
            self.reader.enable_truncation(max_length, strategy="longest_first", direction=self.side)
        with _panics_as_errors():
            return list(self.reader.encode_batch(list(texts), add_special_tokens=special))

    def windows(self, text: str | tuple[str, str], max_length: int, stride: int) -> list[Encoding]:
        """Encodings of at most `max_length` tokens that cover the whole text (of a pair, the second one); each shares
        `stride` tokens with the one before. Raises ValueError if a pair's first text leaves no room."""
        strategy = "only_second" if isinstance(text, tuple) else "longest_first"
        if isinstance(text, tuple):
            self.reader.no_truncation()
            room = max_length - len(self.reader.encode(text[0], ""))
            if room < 8:
                raise ValueError("the first text leaves no room for the second")
            stride = min(stride, room // 2)
        self.reader.enable_truncation(max_length, stride=stride, strategy=strategy)
        with _panics_as_errors():
            whole = self.reader.encode(*text) if isinstance(text, tuple) else self.reader.encode(text)
        return [whole, *whole.overflowing]

    def batch(self, encodings: Sequence[Encoding], *, left: bool = False) -> dict[str, torch.Tensor]:
        """input_ids, attention_mask, token_type_ids: [batch, longest] int64, padded on the right or the left."""
        longest = max(len(encoding) for encoding in encodings)

        def padded(values: Sequence[Sequence[int]], fill: int) -> torch.Tensor:
            rows = [
                [fill] * (longest - len(row)) + list(row) if left else list(row) + [fill] * (longest - len(row))
                for row in values
            ]
            return torch.tensor(rows, dtype=torch.long)

        return {
            "input_ids": padded([e.ids for e in encodings], self.pad),
            "attention_mask": padded([e.attention_mask for e in encodings], 0),
            "token_type_ids": padded([e.type_ids for e in encodings], 0),
        }

    def token(self, index: int) -> str:
        """The token of an id, as the tokenizer's files have it. (The package gives some added tokens in lower case.)"""
        tokens: Any = self.reader.get_added_tokens_decoder() if hasattr(self.reader, "get_added_tokens_decoder") else {}
        return str(tokens[index].content if index in tokens else self.reader.id_to_token(index))

    def is_byte(self, token: int) -> bool:
        """Whether a token is a single byte, as in tokenizers with byte fallback (Llama's)."""
        return _BYTE.fullmatch(self.reader.id_to_token(token) or "") is not None

    def decode(self, ids: Sequence[int]) -> str:
        """The text of tokens, without special ones."""
        text = str(self.reader.decode(list(ids), skip_special_tokens=True))
        if self.unsettled:
            for spaced in _SPACES:
                text = text.replace(spaced, spaced.strip())
        return text


@contextmanager
def _panics_as_errors() -> Iterator[None]:
    """Turn a panic of the package into a ValueError: it is no Exception, and would end the worker with its batch. A
    pattern in tokenizer.json can panic at some texts."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise ValueError(f"the tokenizer fails on this text: {error}") from None


def _split_special_tokens(reader: Reader) -> None:
    """Have special tokens in a text split like other text. Raises ValueError if the package cannot."""
    if not hasattr(reader, "encode_special_tokens"):
        raise ValueError(
            f"tokenizers {tokenizers.__version__} cannot split special tokens, as this tokenizer does: "
            f"{sys.executable} -m pip install 'tokenizers>=0.19'"
        )
    reader.encode_special_tokens = True


def _read_error(model_dir: Path, error: Exception) -> ValueError:
    """The error for a tokenizer.json that cannot be read: usually the package is older than the one that wrote it."""
    here, wrote = tokenizers.__version__, _read(model_dir / "provenance.json").get("versions", {}).get("tokenizers")
    failure = f"tokenizers {here} cannot read this archive's tokenizer.json ({error})"
    if tuple(map(int, here.split(".")[:2])) < MERGES:
        wrote, version = "a newer one", ">=" + ".".join(map(str, MERGES))
    elif wrote and wrote != here:
        version = f"=={wrote}"
    else:
        return ValueError(f"{failure}: build the archive again")
    return ValueError(f"{failure}, which {wrote} wrote: {sys.executable} -m pip install 'tokenizers{version}'")


def _read(file: Path) -> dict[str, Any]:
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.exists() else {}
