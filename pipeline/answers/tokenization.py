"""An archive's tokenizer held against the original's: the same ids for the same texts, or an error that says which
differ."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any

from ..errors import MismatchError
from ..model.checkpoint import read_json
from ..model.tokenizer import PARTS, with_lower_case
from . import corpus

_PLAIN = ("PreTrainedTokenizerFast", "TokenizersBackend")
"""What transformers 4 and 5 call a tokenizer that is what tokenizer.json says, and nothing more."""

_MOST = 10
"""Ids of a text that an error shows."""


def asked(folder: Path, *, pairs: bool, talks: bool, max_length: int | None) -> dict[str, Any]:
    """The part of a worker's job that says what to tokenize, for the unpacked archive in `folder`: its tokens are part
    of it. Texts are cut to `max_length`, where that is what the archive's handler does."""
    return {
        "texts": corpus.texts(corpus.special_tokens(folder)),
        "pairs": corpus.PAIRS if pairs else (),
        "talks": corpus.TALKS if talks else (),
        "decode": talks,
        "max_length": max_length,
    }


def compared(
    name: str, folder: Path, texts: dict[str, Any], wanted: dict[str, Any], got: dict[str, Any]
) -> dict[str, int]:
    """How many texts, pairs and talks have the same ids in the archive, called `name` and unpacked in `folder`, as in
    the original; `texts` as `asked` has them, `wanted` and `got` what the two made of them.

    What the original itself refuses counts for nothing. Raises MismatchError with the first that differs, in its ids,
    a pair's in its token types, or a text's in what its ids are decoded to.
    """
    counts = {}
    for kind in ("texts", "pairs", "talks"):
        rows = [
            (text, theirs, ours)
            for text, theirs, ours in zip(texts[kind], wanted[kind], got[kind], strict=True)
            if theirs is not None
        ]
        counts[kind] = len(rows)
        differing = [row for row in rows if row[1] != row[2]]
        if differing:
            text, theirs, ours = differing[0]
            what = f"{name} does not tokenize like the original: {len(differing)} of {len(rows)} {kind} differ, first"
            if kind == "talks" and (isinstance(ours, str) or theirs[0] != ours[0]):
                raise MismatchError(f"{what} {_short(text)}", *_other_prompt(theirs[0], ours))
            if kind == "talks":
                text, theirs, ours = theirs[0], theirs[1], ours[1]
            raise MismatchError(
                f"{what} {_short(text)}", _other_ids(folder, wanted["class"], theirs, ours), _fix(folder, wanted)
            )
    kind = f"AutoTokenizer ({wanted['class']})"
    for asked_of, made in (("pairs", "types"), ("texts", "decoded")):
        beside = zip(texts[asked_of], wanted[made], got[made], strict=False)
        if others := [row for row in beside if row[1] is not None and row[1] != row[2]]:
            text, theirs, ours = others[0]
            if made == "types":
                what, why = "give the token types of the original", f"{kind} gives {_types(theirs)}, and the archive "
                why += f"{_types(ours)}: which text of a pair is the first."
            else:
                at = max(0, _first(theirs, ours) - 20)
                what, why = "decode like the original", f"{kind} makes {_short(theirs[at:], 60)} of its ids again, and "
                why += f"the archive {_short(ours[at:], 60)}."
            raise MismatchError(
                f"{name} does not {what}: {len(others)} of {len(texts[asked_of])} {asked_of} differ, first "
                f"{_short(text)}",
                why,
                _fix(folder, wanted),
            )
    return counts


def _types(ids: list[int]) -> str:
    """Token types in a few words: how often each comes, in their order."""
    return " ".join(f"{len(list(run))} x {value}" for value, run in groupby(ids))


def _short(value: Any, most: int = 160) -> str:
    """A text or a conversation as Python writes it, what cannot be printed escaped."""
    text = repr(value)
    return text if len(text) <= most else f"{text[: most - 3]}..."


def _other_prompt(theirs: str, ours: Any) -> tuple[str, str]:
    if isinstance(ours, str):
        said = f"refuses it: {ours}"
        at = 0
    else:
        at = max(0, _first(theirs, ours[0]) - 20)
        said = f"writes {_short(ours[0][at:], 100)}"
    return (
        f"transformers' apply_chat_template writes {_short(theirs[at:], 100)}, and the archive {said}.",
        "The template (chat_template.jinja, or chat_template in tokenizer_config.json) asks for what only transformers "
        "gives to it: write it without that, and save the tokenizer again.",
    )


def _first(one: Any, other: Any) -> int:
    """Where two begin to differ."""
    return next(
        (index for index, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )


def _other_ids(folder: Path, kind: str, theirs: list[int], ours: Any) -> str:
    from tokenizers import Tokenizer

    word = Tokenizer.from_file(str(folder / "tokenizer.json")).id_to_token
    at = 0 if isinstance(ours, str) else _first(theirs, ours)
    said = f"refuses it: {_short(ours)}" if isinstance(ours, str) else _ids(ours, at, word)
    return f"AutoTokenizer ({kind}) gives {_ids(theirs, at, word)}, and the archive {said}."


def _ids(ids: list[int], at: int, word: Callable[[int], str | None]) -> str:
    """The ids around the place `at`, and their tokens."""
    begin = 0 if len(ids) <= _MOST else max(0, at - 2)
    shown = ids[begin : begin + _MOST]
    before, behind = "... " if begin else "", " ..." if len(ids) > begin + _MOST else ""
    tokens = " ".join(_short(word(one) or "?", 40)[1:-1] for one in shown)
    return f"{before}{' '.join(map(str, shown))}{behind} ({tokens})"


def _fix(folder: Path, wanted: dict[str, Any]) -> str:
    from tokenizers import Tokenizer

    reader = Tokenizer.from_file(str(folder / "tokenizer.json"))
    ours = {name: getattr(reader, name) for name in PARTS}
    own = {name: json.loads(part.__getstate__()) if part is not None else None for name, part in ours.items()}
    *steps, last = (own[name] != wanted["parts"][name] for name in PARTS)
    # The decoder makes no ids, so it counts where all else is the same.
    parts = [name for name, other in zip(PARTS, steps, strict=False) if other] or [PARTS[-1]] * last
    theirs = wanted["parts"]["normalizer"]
    if parts == ["normalizer"] and with_lower_case(own["normalizer"], True) == with_lower_case(theirs, True):
        lower = with_lower_case(theirs, True) == theirs
        return f"Set handler.do_lower_case: {str(lower).lower()}, which is what tokenizer_config.json makes of it."
    save = "AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)"
    config = folder / "tokenizer_config.json"
    said = read_json(config) if config.exists() else {}
    if said.get("split_special_tokens"):
        return (
            "tokenizer_config.json has split_special_tokens, which tokenizer.json has no place for: take it out. "
            "Special tokens in a text then stay whole."
        )
    what = f"another {' and '.join(parts)}" if parts else "other tokens"
    plain = wanted["class"] in _PLAIN
    if not plain and said.get("tokenizer_class") in _PLAIN:
        return (
            f"transformers takes {wanted['class']} for models of this type, whatever tokenizer_config.json says, and "
            f"that makes {what} than tokenizer.json has. {save} writes a tokenizer.json that agrees with it."
        )
    instead = 'set tokenizer_class to "PreTrainedTokenizerFast" in tokenizer_config.json'
    instead = "take those out of tokenizer_config.json" if plain else instead
    return (
        f"tokenizer_config.json makes {what} than tokenizer.json has, which alone is served. If transformers is right, "
        f"{save} makes them one; if tokenizer.json is, {instead}."
    )
