"""Compares an archive's tokenizer with the original's: both must give the same ids for the same texts."""

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
"""The classes, of transformers 4 and 5, of a tokenizer that is defined by tokenizer.json alone."""

_MOST = 10
"""The most ids of a text that an error shows."""


def asked(folder: Path, *, pairs: bool, talks: bool, max_length: int | None) -> dict[str, Any]:
    """What a worker has to tokenize, as part of its job. `folder` is the unpacked archive, whose special tokens are
    included. Texts are truncated to `max_length` tokens; None if the archive's handler does not truncate."""
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
    """The number of texts, pairs and talks that were compared, and agree. `name` is the archive's name, `folder` the
    unpacked archive, `texts` the result of `asked`, `wanted` the original tokenizer's results and `got` the archive's.

    Texts that the original refuses do not count. Raises MismatchError with the first text that differs: in its ids, in
    the token types of a pair, or in the text that its ids are decoded to.
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
    tokenizer = f"AutoTokenizer ({wanted['class']})"
    for kind, result in (("pairs", "types"), ("texts", "decoded")):
        beside = zip(texts[kind], wanted[result], got[result], strict=False)
        if others := [row for row in beside if row[1] is not None and row[1] != row[2]]:
            text, theirs, ours = others[0]
            if result == "types":
                what = "give the token types of the original"
                why = f"{tokenizer} gives {_types(theirs)}, and the archive {_types(ours)}. "
                why += "They say which text of the pair a token is from."
            else:
                at = max(0, _first(theirs, ours) - 20)
                what, why = "decode like the original", f"{tokenizer} decodes its ids to {_short(theirs[at:], 60)}, "
                why += f"and the archive to {_short(ours[at:], 60)}."
            raise MismatchError(
                f"{name} does not {what}: {len(others)} of {len(texts[kind])} {kind} differ, first {_short(text)}",
                why,
                _fix(folder, wanted),
            )
    return counts


def _types(ids: list[int]) -> str:
    """Token types as run lengths: "3 x 0 4 x 1"."""
    return " ".join(f"{len(list(run))} x {value}" for value, run in groupby(ids))


def _short(value: Any, most: int = 160) -> str:
    """A text or a conversation as Python's repr, cut to `most` characters."""
    text = repr(value)
    return text if len(text) <= most else f"{text[: most - 3]}..."


def _other_prompt(theirs: str, ours: Any) -> tuple[str, str]:
    if isinstance(ours, str):
        result = f"refuses it: {ours}"
        at = 0
    else:
        at = max(0, _first(theirs, ours[0]) - 20)
        result = f"writes {_short(ours[0][at:], 100)}"
    return (
        f"transformers' apply_chat_template writes {_short(theirs[at:], 100)}, and the archive {result}.",
        "The template (chat_template.jinja, or chat_template in tokenizer_config.json) uses something that only "
        "transformers gives it: remove that from the template, and save the tokenizer again.",
    )


def _first(one: Any, other: Any) -> int:
    """The index of the first difference between two sequences."""
    return next(
        (index for index, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )


def _other_ids(folder: Path, kind: str, theirs: list[int], ours: Any) -> str:
    from tokenizers import Tokenizer

    word = Tokenizer.from_file(str(folder / "tokenizer.json")).id_to_token
    at = 0 if isinstance(ours, str) else _first(theirs, ours)
    result = f"refuses it: {_short(ours)}" if isinstance(ours, str) else _ids(ours, at, word)
    return f"AutoTokenizer ({kind}) gives {_ids(theirs, at, word)}, and the archive {result}."


def _ids(ids: list[int], at: int, word: Callable[[int], str | None]) -> str:
    """The ids around index `at`, and their tokens."""
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
    # The decoder does not affect ids, so it is named only if everything else is the same.
    parts = [name for name, other in zip(PARTS, steps, strict=False) if other] or [PARTS[-1]] * last
    theirs = wanted["parts"]["normalizer"]
    if parts == ["normalizer"] and with_lower_case(own["normalizer"], True) == with_lower_case(theirs, True):
        lower = with_lower_case(theirs, True) == theirs
        return f"Set handler.do_lower_case: {str(lower).lower()}, as tokenizer_config.json has it."
    save = "AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)"
    config = folder / "tokenizer_config.json"
    settings = read_json(config) if config.exists() else {}
    if settings.get("split_special_tokens"):
        return (
            "tokenizer_config.json has split_special_tokens, which tokenizer.json cannot express: remove it. "
            "Special tokens in a text are then not split."
        )
    what = f"another {' and '.join(parts)}" if parts else "other tokens"
    plain = wanted["class"] in _PLAIN
    if not plain and settings.get("tokenizer_class") in _PLAIN:
        return (
            f"transformers uses {wanted['class']} for models of this type, whatever tokenizer_config.json says. That "
            f"class builds {what} than tokenizer.json has. {save} writes a tokenizer.json that agrees with it."
        )
    instead = 'set tokenizer_class to "PreTrainedTokenizerFast" in tokenizer_config.json'
    instead = "remove those settings from tokenizer_config.json" if plain else instead
    return (
        f"tokenizer_config.json makes {what} than tokenizer.json has, and only tokenizer.json is served. If "
        f"transformers is right, {save} writes a tokenizer.json that agrees; if tokenizer.json is right, {instead}."
    )
