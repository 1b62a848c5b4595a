"""A checkpoint's JSON settings: an allow-list of what reaches a loader or an archive.

Loaders act on any key in these files: `vocab_file` is opened as a path, `_name_or_path` loads another model, `auto_map`
names code. So only listed values pass. Numbers, booleans and null pass where they cannot mean a file. A text passes
under a known key only, and must be a word that is not a path, unless the key has free text that nothing opens.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files.opening import read_text
from ..text import printable
from .checkpoint import CONFIG
from .selection import ADAPTER, ADAPTER_CONFIG, read_object

_WORD = re.compile(r"[\w .,;+*|=()<>\[\]{}!?#&%'-]*")
"""A setting's value: `gelu_new`, `p2c|c2p`, `torch.float32`. Slash, backslash, tilde and colon are excluded, and with
them paths (a worker's folder is empty), addresses, and the Hub's kernels and models."""

_FILE = re.compile(
    r"(?:.*_)?(?:files?|filenames?|paths?|dir|directory|folder|spm|ckpt|vocab|merges)|init_inputs|(?:.*_)?name_or_path"
)
"""Keys whose values loaders open: the tokenizers' `vocab_files_names`, and positional arguments of their constructors.
A tokenizer's constructor also opens numbers, as file descriptors."""

_LABELS = frozenset(("id2label", "label2id"))
"""Mappings whose keys or values are free text."""
_TOKEN = re.compile(r".+_tokens?")

TRUST = ("trust_remote_code", "auto_map")


@dataclass(frozen=True, kw_only=True)
class _Rule:
    """What a settings file may hold.

    words    keys whose texts must not be paths; None for any key
    free     keys with any text, also in nested values
    numbers  whether a number can mean a file
    tokens   whether keys that end in `_token` or `_tokens` have any text
    """

    words: frozenset[str] | None = frozenset()
    free: frozenset[str] = frozenset()
    numbers: bool = False
    tokens: bool = False


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
        # Labels; the prefix that older pipelines put before a text (OPT, T5); and names or patterns of layers that are
        # not quantized.
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
    # peft's adapters: names or patterns of layers, and how they are initialised.
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

_NO_SETTINGS = {"auto_map", *_LABELS}
"""Keys of config.json whose contents are not settings."""

_UNUSED = frozenset(
    ("_commit_hash", "task_specific_params", "license", "revision", "auto_mapping", "parent_library",
     "base_model_class", "megatron_core", "finetuning_task", "tokenizer_name")
)  # fmt: skip
"""Keys that are removed without a note: the tasks do not read them."""

_REMOVED = object()


def sanitize(folder: Path, where: str, *, trusted: bool = False) -> list[str]:
    """Remove from the settings of a checkpoint in `folder` (files, not links) everything that the rules do not allow. A
    file that complies is not rewritten. With `trusted` remote code, which reads its own settings, only values that
    transformers would open or load are removed.

    Returns a note for each file that lost keys with a possible meaning: "config.json: attn_implementation". Raises
    InputError for a file that is not a JSON object, and unless `trusted` for one that asks for code to run.
    """
    return list(_sanitized(folder, where, trusted))


def _sanitized(folder: Path, where: str, trusted: bool) -> Iterator[str]:
    for name in _RULES:
        file = folder / name
        if not file.is_file():
            continue
        try:
            text = read_text(file)
        except ValueError:
            raise InputError(f"{where}/{name} is not a text.", fix="Save the model again.") from None
        except OSError as error:
            raise InputError(f"{where}/{name} cannot be read: {error.strerror}.", fix="Save the model again.") from None
        settings = read_object(text, name, where)
        if not trusted:
            _refuse_trust(settings, name, where)
        kept, removed = filtered(settings, name, trusted=trusted)
        if removed:
            file.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
        if noted := sorted({key for key in removed if not _FILE.fullmatch(key) and key not in _UNUSED}):
            yield f"{name}: {', '.join(map(printable, noted))}"


def filtered(settings: dict[str, Any], name: str, *, trusted: bool = False) -> tuple[dict[str, Any], list[str]]:
    """The allowed part of the settings in the file `name`, and the keys of the removed values."""
    removed: list[str] = []
    sieve = _Sieve(_RULES[name], name, trusted, removed)
    kept = {key: value for key, value in ((k, sieve.top(k, v)) for k, v in settings.items()) if value is not _REMOVED}
    return kept, removed


@dataclass(frozen=True)
class _Sieve:
    """Applies a rule to the values of the file `name`, and collects the keys of removed ones."""

    rule: _Rule
    name: str
    trusted: bool
    removed: list[str]

    def top(self, key: str, value: Any) -> Any:
        # transformers uses it only for a class that it does not have, and asks whether the code is trusted.
        if key == "auto_map" and self.name in (CONFIG, "tokenizer_config.json"):
            return value
        return self.of(key, value, free=False)

    def of(self, key: str, value: Any, *, free: bool) -> Any:
        """The allowed part of a value under a key; _REMOVED if nothing is allowed."""
        if self.name == CONFIG and key in _LABELS:
            return value
        if self._kept(key, value, free):
            return value if not isinstance(value, (dict, list)) else self._inside(key, value, free)
        self.removed.append(key)
        return _REMOVED

    def _kept(self, key: str, value: Any, free: bool) -> bool:
        if value is None:
            return True
        if _FILE.fullmatch(key):
            return self._is_own(key) or not (self.rule.numbers or _has_text(value))
        if key == "tokenizer_class" and not self.trusted:
            # transformers would load any other object that it has under this name.
            return isinstance(value, str) and re.fullmatch(r"\w*(Tokenizer(Fast)?|Backend)", value) is not None
        if not isinstance(value, str):
            return True
        return self.trusted or self._free(key, free) or (self._named(key) and _is_word(value))

    def _is_own(self, key: str) -> bool:
        """Whether trusted remote code reads the file that the key names. transformers itself opens the files that its
        tokenizers' settings name, and loads what `name_or_path` names."""
        return self.trusted and self.name == CONFIG and not key.endswith("name_or_path")

    def _named(self, key: str) -> bool:
        return self.rule.words is None or key in self.rule.words

    def _free(self, key: str, free: bool) -> bool:
        return free or key in self.rule.free or (self.rule.tokens and _TOKEN.fullmatch(key) is not None)

    def _inside(self, key: str, value: Any, free: bool) -> Any:
        free = self._free(key, free)
        if isinstance(value, list):
            items = [each for each in (self.of(key, item, free=free) for item in value) if each is not _REMOVED]
            return items if items or not value else _REMOVED
        if key == "chat_template" and not _is_template(value):
            self.removed.append(key)
            return _REMOVED
        kept = {k: v for k, v in ((k, self.of(k, v, free=free)) for k, v in value.items()) if v is not _REMOVED}
        return kept if kept or not value else _REMOVED


def _is_template(value: dict[str, Any]) -> bool:
    """Whether the templates' names, which become file names when they are saved, are words."""
    names = [*value, *([value["name"]] if "name" in value else [])]
    return all(isinstance(name, str) and _is_word(name) for name in names)


def _has_text(value: Any) -> bool:
    if isinstance(value, (list, dict)):
        return any(_has_text(item) for item in (value.values() if isinstance(value, dict) else value))
    return isinstance(value, str)


def _is_word(text: str) -> bool:
    return _WORD.fullmatch(text) is not None and ".." not in text


def _refuse_trust(settings: dict[str, Any], name: str, where: str) -> None:
    """Raise InputError for settings that ask for code to run which the user did not trust."""
    for place, key, value in keys_of(settings, ""):
        deep = place != key or name not in (CONFIG, "tokenizer_config.json")
        if value and (key == "trust_remote_code" or (key == "auto_map" and deep)):
            raise InputError(
                f"{where}/{name} asks to run the model's own code: {place}.",
                "Whether code runs is your decision; a checkpoint cannot make it.",
                f"Remove {key} in a copy of it; or, once you have read the code, set handler.trust_remote_code: true.",
            )


def keys_of(value: Any, place: str) -> Iterator[tuple[str, str, Any]]:
    """Every key of a JSON value and its nested values: the dotted path, the key and the value."""
    if isinstance(value, list):
        for item in value:
            yield from keys_of(item, place)
    elif isinstance(value, dict):
        for key, inside in value.items():
            at = f"{place}.{key}" if place else key
            yield at, key, inside
            if key not in _NO_SETTINGS:
                yield from keys_of(inside, at)
