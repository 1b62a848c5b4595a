"""Sampling and its rules, against transformers' own processors."""

from __future__ import annotations

from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from handlers.inference.generation import Parameters, Row, narrowed, penalized  # noqa: E402
from handlers.text.tokenization import _UNSETTLED, Tokenizer  # noqa: E402

pytestmark = pytest.mark.slow


class Letters:
    """Stands for a tokenizer: token 0 is the letter a, and so on."""

    unsettled = 0

    def is_byte(self, _token: int) -> bool:
        return False

    def decode(self, ids: list[int]) -> str:
        return "".join(chr(97 + index) for index in ids)


def row(**parameters: Any) -> Row:
    return Row([1], Parameters.of(parameters), Letters(), frozenset({25}))  # type: ignore[arg-type]


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("top_k", [0, 1, 7, 1000])
@pytest.mark.parametrize("top_p", [1e-9, 0.05, 0.6, 1.0])
def test_narrowing_is_what_transformers_warpers_do(temperature: float, top_k: int, top_p: float) -> None:
    from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    logits = torch.randn(1, 50, generator=torch.Generator().manual_seed(5)) * 3
    expected = TemperatureLogitsWarper(temperature)(None, logits)
    if top_k:
        expected = TopKLogitsWarper(top_k)(None, expected)
    if top_p < 1:
        expected = TopPLogitsWarper(top_p)(None, expected)
    got = narrowed(logits[0], temperature, top_k, top_p)
    assert torch.equal(got.isinf(), expected[0].isinf())
    assert torch.allclose(got, expected[0])


def test_the_penalty_is_transformers_own() -> None:
    from transformers import RepetitionPenaltyLogitsProcessor

    logits, seen = torch.randn(1, 30), torch.tensor([[3, 4, 4, 29]])
    expected = RepetitionPenaltyLogitsProcessor(1.7)(seen, logits.clone())[0]
    assert torch.allclose(penalized(logits[0], seen[0].unique(), 1.7), expected)


def test_one_seed_gives_one_text_and_another_seed_another() -> None:
    def text(seed: int) -> list[int]:
        one, logits = row(do_sample=True, seed=seed, max_new_tokens=30), torch.zeros(20)
        while one.finish is None:
            one.accept(one.choose(logits))
        return one.new

    assert text(1) == text(1)
    assert text(1) != text(2)


def test_a_text_ends_at_its_end_token_at_a_stop_word_or_at_the_limit() -> None:
    ended = row(max_new_tokens=9)
    for token in (0, 25):
        ended.accept(token)
    assert (ended.finish, ended.new) == ("stop", [0, 25])
    stopped = row(max_new_tokens=9, stop=["cd", "zz"])
    for token in (0, 2, 3):
        stopped.accept(token)
    assert (stopped.finish, stopped.text) == ("stop", "a")
    full = row(max_new_tokens=2)
    for token in (0, 1):
        full.accept(token)
    assert (full.finish, full.text) == ("length", "ab")


def test_a_requests_parameters_come_before_the_archives() -> None:
    found = Parameters.of({"temperature": 2.0, "max_new_tokens": 5}, {"temperature": 0.5, "stop": "x"})
    assert (found.temperature, found.max_new_tokens, found.stop) == (0.5, 5, ("x",))


def test_no_part_is_taken_back_where_spaces_before_punctuation_are_removed() -> None:
    tokenizer, pieces = Tokenizer.__new__(Tokenizer), [*" .'n", " n ' t", " ' ", " 've", " ' re", "ab"]
    tokenizer.unsettled = _UNSETTLED
    chosen = Random(5)
    for _ in range(1000):
        text = "".join(chosen.choices(pieces, k=6))
        tokenizer.reader = SimpleNamespace(  # type: ignore[assignment]
            decode=lambda ids, text=text, **_: "".join(text[index] for index in ids), id_to_token=lambda _: ""
        )
        parts: list[str] = []
        one = Row([0], Parameters(max_new_tokens=len(text) - 1), tokenizer, frozenset(), send=parts.append)
        for index in range(1, len(text)):
            one.accept(index)
        assert "".join(parts) == one.text == tokenizer.decode(range(len(text)))[1:]


def test_the_parts_that_are_sent_make_up_the_text_and_none_is_taken_back() -> None:
    class Bytes:
        """Stands for a byte-level tokenizer: a token is a byte."""

        unsettled = 0

        def is_byte(self, _token: int) -> bool:
            return False

        def decode(self, ids: list[int]) -> str:
            return bytes(ids).strip(b"\0").decode("utf-8", "replace")

    for stop, expected in (([], "ab 😀 cde"), (["cd"], "ab 😀 "), (["xyz", "dz"], "ab 😀 cde")):
        parts: list[str] = []
        limits = Parameters.of({"max_new_tokens": 99, "stop": stop})
        one = Row([1], limits, Bytes(), frozenset({0}), send=parts.append)  # type: ignore[arg-type]
        for token in [*"ab 😀 cde".encode(), 0]:
            if one.finish is None:
                one.accept(token)
        assert "".join(parts) == one.text == expected
        assert "\ufffd" not in "".join(parts)
        assert len(parts) > 3


def test_no_byte_is_sent_while_those_behind_it_may_spoil_it() -> None:
    from tokenizers import Tokenizer as Reader
    from tokenizers import decoders, models

    pieces = ["a", "b", "<0xC3>", "<0xA9>"]
    reader = Reader(models.WordLevel({piece: index for index, piece in enumerate(pieces)}, unk_token="a"))
    reader.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    tokenizer = Tokenizer.__new__(Tokenizer)
    tokenizer.reader = reader
    for tokens, expected in (([1, 2, 3, 0, 2, 3], "béaé"), ([1, 2, 3, 2, 0], "b\ufffd\ufffd\ufffda")):
        parts: list[str] = []
        one = Row([0], Parameters(max_new_tokens=len(tokens)), tokenizer, frozenset(), send=parts.append)
        for token in tokens:
            one.accept(token)
        assert "".join(parts) == one.text == expected
        assert len(parts) > 1


def test_a_long_stop_word_takes_no_longer_than_the_text_that_may_begin_it() -> None:
    stops = [str(number) + "x" * 1000 for number in range(16)]
    one = row(max_new_tokens=200, stop=stops)
    one.send = [].append  # type: ignore[assignment]
    tried = 0

    class Word(str):
        def __getitem__(self, place: Any) -> str:
            nonlocal tried
            tried += 1
            return str(self)[place]

    one.parameters.stop = tuple(map(Word, stops))
    for _ in range(10):
        one.accept(3)
    assert 0 < tried <= 16 * sum(range(11))
