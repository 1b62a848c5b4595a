"""The JSON settings of a checkpoint: what of them reaches a loader, or an archive.

Loaders take whatever keys these files have: `vocab_file` is opened as a path, `_name_or_path` loads another model,
`auto_map` names code. So only what is listed here passes. Numbers, booleans and null pass where no file can be meant; a
text passes only under a key that is known, and there it is a word that names no path, or free text that nothing opens.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..text import printable
from .checkpoint import CONFIG
from .selection import ADAPTER, ADAPTER_CONFIG, read_object

_WORD = re.compile(r"[\w .,;+*|=()<>\[\]{}!?#&%'-]*")
"""A setting's value: `gelu_new`, `p2c|c2p`, `torch.float32`. No slash, backslash, tilde or colon: so no path (a
worker's folder is empty), no address, and no kernel or model of the Hub."""

_FILE = re.compile(
    r"(?:.*_)?(?:files?|filenames?|paths?|dir|directory|folder|spm|ckpt|vocab|merges)|init_inputs|(?:.*_)?name_or_path"
)
"""Keys that loaders open: all of the tokenizers' `vocab_files_names`, and the arguments of their constructors by place.
For a tokenizer's constructor a number is a file as well, by its descriptor."""

_LABELS = frozenset(("id2label", "label2id"))
"""Whose keys, or contents, are anybody's words."""
_TOKEN = re.compile(r".+_tokens?")

TRUST = ("trust_remote_code", "auto_map")


@dataclass(frozen=True, kw_only=True)
class _Rule:
    """`free` keys hold any text, also below them; `words` only texts that name no path, any key if it is None.
    `numbers` holds if a number can mean a file."""

    words: frozenset[str] | None = frozenset()
    free: frozenset[str] = frozenset()
    numbers: bool = False
    tokens: bool = False
    """Whether keys that end in `_token` hold any text."""


_TOKENIZER = _Rule(
    words=frozenset(
        ("tokenizer_class", "processor_class", "backend", "padding_side", "truncation_side", "model_input_names",
         "errors", "src_lang", "tgt_lang", "language", "task", "language_codes", "padding", "truncation",
         "truncation_strategy", "padding_strategy", "tokenizer_type", "word_tokenizer_type", "subword_tokenizer_type",
         "phonemizer_lang", "phonemizer_backend", "transformers_version", "vocab_type", "wordpieces_prefix")
    ),
    free=frozenset(("chat_template", "additional_special_tokens", "extra_special_tokens", "added_tokens_decoder",
                    "model_specific_special_tokens", "never_split", "response_schema", "response_template")),
    numbers=True,
    tokens=True,
)  # fmt: skip

_RULES = {
    CONFIG: _Rule(
        words=None,
        # Labels; what older pipelines put in front of a text (OPT, T5); and the names of layers, or patterns of them,
        # that a quantized checkpoint keeps as they are.
        free=_LABELS
        | {"prefix", "ignore", "targets", "modules_to_not_convert", "modules_to_convert", "exclude_modules"},
    ),
    "generation_config.json": _Rule(
        words=frozenset(
            ("transformers_version", "cache_implementation", "early_stopping", "dola_layers", "seeding_scheme",
             "language", "task", "backend", "mode", "assistant_early_exit")
        ),
        free=frozenset(("stop_strings",)),
    ),
    "tokenizer_config.json": _TOKENIZER,
    "special_tokens_map.json": _TOKENIZER,
    "added_tokens.json": _Rule(),
    # peft's kinds of adapters: the names of layers, or patterns of them, and how they are filled.
    f"{ADAPTER}/{ADAPTER_CONFIG}": _Rule(
        words=frozenset(
            ("peft_type", "task_type", "peft_version", "bias", "init_lora_weights", "init_weights", "act_fn", "variant",
             "wavelet_family", "corda_method")
        ),
        free=frozenset(
            ("target_modules", "exclude_modules", "modules_to_save", "feedforward_modules", "layers_pattern",
             "target_parameters", "target_modules_bd_a", "target_modules_bd_b")
        ),
    ),
}  # fmt: skip

_SAID = {"auto_map", *_LABELS}
"""Keys of config.json whose contents are no settings."""

_UNSAID = frozenset(
    ("_commit_hash", "task_specific_params", "license", "revision", "auto_mapping", "parent_library",
     "base_model_class", "megatron_core", "finetuning_task", "tokenizer_name")
)  # fmt: skip
"""What may be left out without a word: nothing of the four tasks reads it."""

_GONE = object()


def settle(folder: Path, where: str, *, trusted: bool = False) -> list[str]:
    """Take out of the settings of a checkpoint in `folder` (files, not links) what is not to be read, and say which
    keys went that may have meant something, by file: "config.json: attn_implementation". A file with nothing to take
    out stays as it is. Code of the model's own that is `trusted` reads its settings itself: then only what transformers
    would open or load goes.

    Raises InputError for a file that is not a JSON object, and unless `trusted` for one that asks for code to be run.
    """
    try:
        return list(_settled(folder, where, trusted))
    except RecursionError:
        raise InputError(f"The settings of {where} are nested too deeply.", fix="Save the model again.") from None


def _settled(folder: Path, where: str, trusted: bool) -> Iterator[str]:
    for name in _RULES:
        file = folder / name
        if not file.is_file():
            continue
        try:
            text = file.read_text(encoding="utf-8")
        except ValueError:
            raise InputError(f"{where}/{name} is not a text.", fix="Save the model again.") from None
        told = read_object(text, name, where)
        if not trusted:
            _refuse_trust(told, name, where)
        kept, gone = kept_of(told, name, trusted=trusted)
        if gone:
            file.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
        if said := sorted({key for key in gone if not _FILE.fullmatch(key) and key not in _UNSAID}):
            yield f"{name}: {', '.join(map(printable, said))}"


def kept_of(told: dict[str, Any], name: str, *, trusted: bool = False) -> tuple[dict[str, Any], list[str]]:
    """What stays of the object in a settings file of that name, and the keys of what goes."""
    gone: list[str] = []
    sieve = _Sieve(_RULES[name], name, trusted, gone)
    kept = {key: value for key, value in ((k, sieve.top(k, v)) for k, v in told.items()) if value is not _GONE}
    return kept, gone


@dataclass(frozen=True)
class _Sieve:
    rule: _Rule
    name: str
    trusted: bool
    gone: list[str]

    def top(self, key: str, value: Any) -> Any:
        # transformers heeds it beside an own class alone, and asks whether it is trusted.
        if key == "auto_map" and self.name in (CONFIG, "tokenizer_config.json"):
            return value
        return self.of(key, value, free=False)

    def of(self, key: str, value: Any, *, free: bool) -> Any:
        """What stays of a value under a key; _GONE if that is nothing."""
        if self.name == CONFIG and key in _LABELS:
            return value
        if self._kept(key, value, free):
            return value if not isinstance(value, (dict, list)) else self._inside(key, value, free)
        self.gone.append(key)
        return _GONE

    def _kept(self, key: str, value: Any, free: bool) -> bool:
        if value is None:
            return True
        if _FILE.fullmatch(key):
            return self._is_own(key) or not (self.rule.numbers or _has_text(value))
        if key == "tokenizer_class" and not self.trusted:
            # transformers would take whatever else it has of that name.
            return isinstance(value, str) and re.fullmatch(r"\w*(Tokenizer(Fast)?|Backend)", value) is not None
        if not isinstance(value, str):
            return True
        return self.trusted or self._free(key, free) or (self._named(key) and _is_word(value))

    def _is_own(self, key: str) -> bool:
        """Whether it is trusted code that a file is named to, and not transformers: that opens what is named to its
        tokenizers, and loads what `name_or_path` names."""
        return self.trusted and self.name == CONFIG and not key.endswith("name_or_path")

    def _named(self, key: str) -> bool:
        return self.rule.words is None or key in self.rule.words

    def _free(self, key: str, free: bool) -> bool:
        return free or key in self.rule.free or (self.rule.tokens and _TOKEN.fullmatch(key) is not None)

    def _inside(self, key: str, value: Any, free: bool) -> Any:
        free = self._free(key, free)
        if isinstance(value, list):
            kept = [each for each in (self.of(key, item, free=free) for item in value) if each is not _GONE]
            return kept if kept or not value else _GONE
        if key == "chat_template" and not _is_template(value):
            self.gone.append(key)
            return _GONE
        found = {k: v for k, v in ((k, self.of(k, v, free=free)) for k, v in value.items()) if v is not _GONE}
        return found if found or not value else _GONE


def _is_template(value: dict[str, Any]) -> bool:
    """Whether the names of templates, which become names of files when they are saved, are words."""
    names = [*value, *([value["name"]] if "name" in value else [])]
    return all(isinstance(name, str) and _is_word(name) for name in names)


def _has_text(value: Any) -> bool:
    if isinstance(value, (list, dict)):
        return any(_has_text(item) for item in (value.values() if isinstance(value, dict) else value))
    return isinstance(value, str)


def _is_word(text: str) -> bool:
    return _WORD.fullmatch(text) is not None and ".." not in text


def _refuse_trust(told: dict[str, Any], name: str, where: str) -> None:
    """Raises InputError for settings that would have code run which nobody has trusted."""
    for place, key, value in keys_of(told, ""):
        deep = place != key or name not in (CONFIG, "tokenizer_config.json")
        if value and (key == "trust_remote_code" or (key == "auto_map" and deep)):
            raise InputError(
                f"{where}/{name} asks for code of the model's own to be run: {place}.",
                "Whether code runs is your decision, and no setting of a checkpoint's.",
                f"Take {key} out of it; or, once you have read the code, set handler.trust_remote_code: true.",
            )


def keys_of(value: Any, place: str) -> Iterator[tuple[str, str, Any]]:
    """Every key of an object and of what is in it, with the place where it stands."""
    if isinstance(value, list):
        for item in value:
            yield from keys_of(item, place)
    elif isinstance(value, dict):
        for key, inside in value.items():
            at = f"{place}.{key}" if place else key
            yield at, key, inside
            if key not in _SAID:
                yield from keys_of(inside, at)
