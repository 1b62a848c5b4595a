"""A text at which the package `tokenizers` panics gets an error, and its worker goes on."""

from __future__ import annotations

from typing import Any

import pytest

from mar_pipeline.handlers.text.tokenization import Tokenizer


class PanicException(BaseException):
    """As PyO3 has it: no Exception."""


class _Panicking:
    """A tokenizer whose pattern takes too long for every text."""

    def __getattr__(self, name: str) -> Any:
        def call(*_: Any, **__: Any) -> None:
            if name.startswith("encode"):
                raise PanicException("Onig: Regex search error: retry-limit-in-match over")

        return call


@pytest.mark.parametrize("ask", [lambda it: it.encode(["x"], None), lambda it: it.windows("x", 8, 2)])
def test_a_panic_is_an_error_of_the_text(ask: Any) -> None:
    tokenizer: Any = Tokenizer.__new__(Tokenizer)
    tokenizer.reader, tokenizer.side = _Panicking(), "right"
    with pytest.raises(ValueError, match="the tokenizer fails on this text: Onig"):
        ask(tokenizer)
