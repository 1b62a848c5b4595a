"""Word lists and shapes of sentences: how they are read, and what they are expanded to."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from pathlib import Path


def read_words(path: Path) -> dict[str, tuple[str, ...]]:
    """Class -> fillers, from lines "class: one, two, three"; lines that start with "#" are comments."""
    words: dict[str, tuple[str, ...]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.startswith("#"):
            name, _, rest = line.partition(":")
            words[name.strip()] = tuple(word.strip() for word in rest.split(",") if word.strip())
    return words


def article(noun: str) -> str:
    """The noun with "a" or "an"."""
    return f"{'an' if noun[0].lower() in 'aeiou' and not noun.startswith(('eu', 'uni', 'use')) else 'a'} {noun}"


@dataclass(frozen=True)
class Person:
    """Someone that facts are told of: the name at first mention, the short one later, and the pronouns."""

    full: str
    short: str
    he: str

    @property
    def his(self) -> str:
        """The possessive pronoun."""
        return "his" if self.he == "he" else "her"

    @property
    def him(self) -> str:
        """The object pronoun."""
        return "him" if self.he == "he" else "her"


def expand(text: str, rng: random.Random) -> str:
    """One reading of a shape: [x] kept or dropped, one of (a|b) chosen, the innermost first."""
    inner = re.compile(r"\[([^\[\]()]*)\]|\(([^\[\]()]*)\)")
    while found := inner.search(text):
        if found.group(1) is not None:
            options = found.group(1).split("|")
            word = rng.choice(options) if rng.random() < (0.5 if len(options) < 2 else 1.0) else ""
        else:
            word = rng.choice(found.group(2).split("|"))
        text = text[: found.start()] + word + text[found.end() :]
    return re.sub(r" +", " ", text).strip()
