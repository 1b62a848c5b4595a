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

# fmt: off
_ADJECTIVES = ("old", "new", "small", "large", "quiet", "busy", "early", "late", "good", "bad", "warm", "cold", "long", "short", "clean", "dark", "bright", "heavy", "light", "strange")
_NOUNS = ("room", "station", "letter", "garden", "teacher", "river", "market", "window", "train", "office", "dinner", "story", "doctor", "street", "machine", "book", "paper", "school", "hotel", "bridge", "kitchen", "village", "winter", "meeting", "library", "picture", "question", "ticket", "table", "driver")
_VERBS = ("found", "left", "liked", "needed", "saw", "opened", "closed", "wanted", "passed", "kept", "bought", "moved", "followed", "remembered", "noticed", "described")
_PLACES = ("near", "behind", "in", "by", "before", "after", "under", "with", "without", "beyond")
_STARTS = ("the", "a", "this", "every", "our", "their", "her", "his", "my", "that")
# fmt: on


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


def workloads(tokenizer_file: Path, count: int = COUNT, limit: int | None = None) -> dict[str, Workload]:
    """All workloads, counted in the tokens of that tokenizer.json; no text has more than `limit` tokens.

    Real lengths are skewed to the short side: in `mixed`, 12 to 24 tokens are as frequent as 64 to 128.
    """
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    # A checkpoint may have its own of both, which its users replace.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    draw = random.Random(20240)
    short = [_sentence(_words(draw), draw.randint(*SHORT)) for _ in range(count)]
    low, high = (math.log(end) for end in _within(MIXED, limit))
    mixed = [_text(tokenizer, draw, round(math.exp(draw.uniform(low, high)))) for _ in range(count)]
    long = [_text(tokenizer, draw, draw.randint(*_within(LONG, limit))) for _ in range(count)]
    kinds = {
        "short": (short, f"{SHORT[0]} to {SHORT[1]} words"),
        "mixed": (mixed, f"{MIXED[0]} to {MIXED[1]} tokens, each doubling as frequent as the next"),
        "long": (long, f"{LONG[0]} to {LONG[1]} tokens, each length as frequent"),
    }
    return {
        name: Workload(name=name, about=about, texts=texts, lengths=[_length(tokenizer, text) for text in texts])
        for name, (texts, about) in kinds.items()
    }


def _within(bounds: tuple[int, int], limit: int | None) -> tuple[int, int]:
    return bounds if limit is None else (min(bounds[0], limit), min(bounds[1], limit))


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
