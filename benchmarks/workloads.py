"""The texts that are sent: made up, the same ones in every run, of the lengths that texts have."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

COUNT = 300  # different texts of a workload
MIXED = (12, 128)  # tokens, special ones counted
LONG = (200, 450)
SHORT = (8, 14)  # words

PROMPTS = (8, 64)


def _list(words: str) -> tuple[str, ...]:
    return tuple(words.split())


_STARTS = _list("the a this every our their her his my that")
_ADJECTIVES = _list(
    "old new small large quiet busy early late good bad warm cold long short clean dark bright heavy light"
)
_NOUNS = _list(
    "room station letter garden teacher river market window train office dinner story doctor street machine book paper "
    "school hotel bridge kitchen village winter meeting library picture question ticket table driver"
)
_VERBS = _list(
    "found left liked needed saw opened closed wanted passed kept bought moved followed remembered noticed described"
)
_PLACES = _list("near behind in by before after under with without beyond")


@dataclass(frozen=True, kw_only=True)
class Workload:
    """Texts of one kind; `lengths` are their tokens, special ones counted."""

    name: str
    about: str
    texts: list[str]
    lengths: list[int]

    @property
    def mean(self) -> float:
        return statistics.mean(self.lengths)


def workloads(tokenizer_file: Path, count: int = COUNT) -> dict[str, Workload]:
    """The texts of classifiers, counted in the tokens of that tokenizer.json.

    Real lengths are skewed to the short side: in `mixed`, 12 to 24 tokens are as frequent as 64 to 128.
    """
    tokenizer = _tokenizer(tokenizer_file)
    draw = random.Random(20240)
    short = [_sentence(_words(draw), draw.randint(*SHORT)) for _ in range(count)]
    mixed = [_text(tokenizer, draw, _skewed(draw, MIXED)) for _ in range(count)]
    long = [_text(tokenizer, draw, draw.randint(*LONG)) for _ in range(count)]
    return {
        "short": _workload(tokenizer, "short", f"{SHORT[0]} to {SHORT[1]} words", short),
        "mixed": _workload(
            tokenizer, "mixed", f"{MIXED[0]} to {MIXED[1]} tokens, each doubling as frequent as the next", mixed
        ),
        "long": _workload(tokenizer, "long", f"{LONG[0]} to {LONG[1]} tokens, each length as frequent", long),
    }


def prompts(tokenizer_file: Path, count: int = COUNT) -> Workload:
    """The texts of generators: skewed as `mixed` is."""
    tokenizer, draw = _tokenizer(tokenizer_file), random.Random(20241)
    texts = [_text(tokenizer, draw, _skewed(draw, PROMPTS)) for _ in range(count)]
    return _workload(
        tokenizer, "prompts", f"{PROMPTS[0]} to {PROMPTS[1]} tokens, each doubling as frequent as the next", texts
    )


def _workload(tokenizer: Tokenizer, name: str, about: str, texts: list[str]) -> Workload:
    return Workload(name=name, about=about, texts=texts, lengths=[_length(tokenizer, text) for text in texts])


def _tokenizer(file: Path) -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(file))
    # A checkpoint may have its own of both, which its users replace.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _skewed(draw: random.Random, bounds: tuple[int, int]) -> int:
    low, high = bounds
    return round(math.exp(draw.uniform(math.log(low), math.log(high))))


def _length(tokenizer: Tokenizer, text: str) -> int:
    return len(tokenizer.encode(text).ids)


def _words(draw: random.Random) -> Iterator[str]:
    """Words without end, such that any run of them reads like English from afar."""
    while True:
        yield from (draw.choice(_STARTS), draw.choice(_ADJECTIVES), draw.choice(_NOUNS), draw.choice(_VERBS))
        yield from (draw.choice(_STARTS), draw.choice(_NOUNS))
        yield from (draw.choice(_PLACES), draw.choice(_STARTS), draw.choice(_ADJECTIVES), draw.choice(_NOUNS), "and")


def _sentence(words: Iterator[str], count: int) -> str:
    return " ".join(next(words) for _ in range(count)).capitalize() + "."


def _text(tokenizer: Tokenizer, draw: random.Random, tokens: int) -> str:
    """A text of that many tokens, or as many fewer as one word has."""
    words, text = _words(draw), ""
    while True:
        longer = f"{text} {_sentence(words, draw.randint(6, 14))}".lstrip()
        if _length(tokenizer, longer) >= tokens:
            break
        text = longer
    while _length(tokenizer, longer) > tokens and " " in longer:
        longer = longer.rpartition(" ")[0]
    return longer
