"""Compares an archive's tokenizer with the original's: both must give the same tokens for the same texts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from itertools import groupby
from pathlib import Path
from typing import Any

from ..errors import MismatchError
from ..handlers.protocol.tokenizer_settings import SETTINGS
from ..model.checkpoint import read_json
from ..model.tokenizer import FLAGS, PARTS
from . import corpus

COMPARED = {
    "prompt": "render conversations like",
    "ids": "tokenize like",
    "segments": "give the segments of",
    "special": "mark special tokens like",
    "offsets": "place tokens in the text like",
    "decoded": "decode like",
}
"""What is compared of each text, and the words for an archive that differs in it."""

_MOST = 10
"""The most ids of a text that an error shows."""


def asked(folders: Iterable[Path], *, pairs: bool, talks: bool, max_length: int | None) -> dict[str, Any]:
    """What a worker has to tokenize, as part of its job, with the special tokens of the tokenizers in `folders`. Texts
    are truncated to `max_length` tokens; None if the archive's handler does not truncate."""
    special = [token for folder in folders for token in corpus.special_tokens(folder)]
    return {
        "texts": corpus.texts(special),
        "pairs": corpus.PAIRS if pairs else (),
        "talks": corpus.TALKS if talks else (),
        "max_length": max_length,
    }


def compared(
    name: str, folder: Path, texts: dict[str, Any], wanted: dict[str, Any], got: dict[str, Any]
) -> dict[str, Any]:
    """How much was compared, and agrees: {"texts", "pairs", "talks", "tokens": their numbers, "results": what was
    compared of each}. `name` is the archive's name, `folder` the unpacked archive, `texts` the result of `asked`,
    `wanted` the original tokenizer's results and `got` the archive's.

    Texts that the original refuses do not count. Raises MismatchError with the first text that differs.
    """
    counts, tokens = {}, 0
    for kind in ("texts", "pairs", "talks"):
        rows = [
            (text, theirs, ours)
            for text, theirs, ours in zip(texts[kind], wanted[kind], got[kind], strict=True)
            if theirs is not None
        ]
        counts[kind] = len(rows)
        tokens += sum(len(theirs["ids"]) for _, theirs, _ in rows)
        for what, words in COMPARED.items():
            differing = [row for row in rows if _differs(what, *row[1:])]
            if differing:
                text, theirs, ours = differing[0]
                raise MismatchError(
                    f"{name} does not {words} the original: {len(differing)} of {len(rows)} {kind} differ, first "
                    f"{_short(text)}",
                    _both(folder, what, wanted["class"], theirs, ours),
                    _cause(folder, what, wanted),
                )
    return {**counts, "tokens": tokens, "results": [what for what in COMPARED if what != "prompt" or counts["talks"]]}


def beyond(tokens: list[str]) -> list[str]:
    """The note, if there is one, on the tokens that a model has no embedding for."""
    if not tokens:
        return []
    shown = ", ".join(map(_short, tokens[:5])) + (", ..." if len(tokens) > 5 else "")
    return [
        f"its tokenizer has {len(tokens)} tokens that the model has no embedding for ({shown}): a text with one of "
        "them gets a 400. The model was not resized to its tokenizer (resize_token_embeddings)"
    ]


def follows(folder: Path) -> tuple[dict[str, Any], list[str]]:
    """Which tokenizer an unpacked archive follows, for a report; and a note, if it is not the checkpoint's file."""
    settings = read_json(folder / SETTINGS)
    told = {name: settings[name] for name in ("follows", "class", "rewritten")}
    if not told["rewritten"]:
        return told, []
    parts = " and ".join(told["rewritten"])
    return told, [
        f"it tokenizes as {told['follows']} does: {told['class']} has another {parts} than the checkpoint's "
        "tokenizer.json, and other releases may differ"
    ]


def _differs(what: str, theirs: dict[str, Any], ours: Any) -> bool:
    if what not in theirs:
        return False
    # What an original refuses to give, such as segments for a model without them, is not compared.
    return isinstance(ours, str) or (theirs[what] is not None and theirs[what] != ours[what])


def _both(folder: Path, what: str, kind: str, theirs: dict[str, Any], ours: Any) -> str:
    """The two results, around the first place in which they differ."""
    first = theirs[what]
    at = 0 if isinstance(ours, str) else _first(first, ours[what] or [])
    if what in ("prompt", "decoded"):
        begin = max(0, at - 20)

        def show(value: Any) -> str:
            return _short(value[begin:], 100)
    elif what == "ids":
        from tokenizers import Tokenizer

        word = Tokenizer.from_file(str(folder / "tokenizer.json")).id_to_token

        def show(value: Any) -> str:
            return _ids(value, at, word)
    elif what == "offsets":

        def show(value: Any) -> str:
            return " ".join(f"{start}-{end}" for start, end in value[max(0, at - 2) :][:_MOST])
    else:

        def show(value: Any) -> str:
            return _runs(value)

    who = "apply_chat_template" if what == "prompt" else f"AutoTokenizer ({kind})"
    given = f"refuses it: {_short(ours)}" if isinstance(ours, str) else f"gives {show(ours[what] or [])}"
    return f"{who} gives {show(first)}, and the archive {given}."


def _runs(values: list[int]) -> str:
    """Numbers as run lengths: "3 x 0, 4 x 1"."""
    return ", ".join(f"{len(list(run))} x {value}" for value, run in groupby(values)) or "none"


def _short(value: Any, most: int = 160) -> str:
    """A text or a conversation as Python's repr, cut to `most` characters."""
    text = repr(value)
    return text if len(text) <= most else f"{text[: most - 3]}..."


def _first(one: Any, other: Any) -> int:
    """The index of the first difference between two sequences."""
    return next(
        (index for index, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )


def _ids(ids: list[int], at: int, word: Callable[[int], str | None]) -> str:
    """The ids around index `at`, and their tokens."""
    begin = 0 if len(ids) <= _MOST else max(0, at - 2)
    shown = ids[begin : begin + _MOST]
    before, behind = "... " if begin else "", " ..." if len(ids) > begin + _MOST else ""
    tokens = " ".join(_short(word(one) or "?", 40)[1:-1] for one in shown)
    return f"{before}{' '.join(map(str, shown))}{behind} ({tokens})"


_NAMES = {
    "strip_accents": "strip_accents",
    "handle_chinese_chars": "tokenize_chinese_chars",
    "lowercase": "do_lower_case",
    "add_prefix_space": "add_prefix_space",
    "prepend_scheme": "add_prefix_space",
    "trim_offsets": "trim_offsets",
    "cleanup": "clean_up_tokenization_spaces",
    "single": "add_bos_token, add_eos_token",
    "pair": "add_bos_token, add_eos_token",
}
"""The field of a step in tokenizer.json -> the settings in tokenizer_config.json that decide it."""


def _cause(folder: Path, what: str, wanted: dict[str, Any]) -> str:
    """What the archive's tokenizer differs in, and what to do."""
    if what == "prompt":
        return (
            "The template (chat_template.jinja, or chat_template in tokenizer_config.json) uses something that only "
            "transformers gives it: remove that from the template, and save the tokenizer again."
        )
    steps, flags = _other_steps(folder, wanted["parts"]), _other_flags(folder, wanted["flags"])
    if what == "decoded" and not steps:
        flags.append("clean_up_tokenization_spaces")
    where = [f"the {step} of its tokenizer.json" for step in steps]
    where += [f"{flag} (tokenizer_config.json)" for flag in dict.fromkeys(flags)]
    if where:
        return f"The archive differs in {', '.join(where)}: its files were changed after the build. Build it again."
    return (
        f"{wanted['class']} does something in Python that its tokenizer.json does not have. Save the model with a "
        "tokenizer whose class is PreTrainedTokenizerFast."
    )


def _other_steps(folder: Path, wanted: dict[str, Any]) -> list[str]:
    """The steps of an archive's tokenizer.json that differ from the `wanted` ones, each with the settings that decide
    it, where those are known."""
    from tokenizers import Tokenizer

    reader = Tokenizer.from_file(str(folder / "tokenizer.json"))
    parts = {name: getattr(reader, name) for name in PARTS}
    states = {name: json.loads(part.__getstate__()) if part is not None else None for name, part in parts.items()}
    states["added_tokens"] = {str(index): repr(token) for index, token in reader.get_added_tokens_decoder().items()}
    result = []
    for name, own in states.items():
        if own != wanted[name]:
            one, other = dict(_fields(own)), dict(_fields(wanted[name]))
            changed = {path[-1] for path in one.keys() | other.keys() if one.get(path) != other.get(path)}
            known = sorted({_NAMES[field] for field in changed if field in _NAMES})
            known = ["added_tokens_decoder"] if name == "added_tokens" else known
            result.append(f"{name} ({', '.join(known)})" if known else name)
    return result


def _fields(value: Any, path: tuple[str, ...] = ()) -> Iterable[tuple[tuple[str, ...], Any]]:
    """The fields of a JSON value that have no fields themselves, by their paths; a template of tokens is one."""
    if isinstance(value, dict):
        for name, one in value.items():
            yield from _fields(one, (*path, name))
    elif isinstance(value, list) and not (path and path[-1] in ("single", "pair")):
        for index, one in enumerate(value):
            yield from _fields(one, (*path, str(index)))
    else:
        yield path, value


def _other_flags(folder: Path, wanted: dict[str, Any]) -> list[str]:
    own = read_json(folder / SETTINGS)
    return [name for name in FLAGS if own[name] != wanted[name]]
